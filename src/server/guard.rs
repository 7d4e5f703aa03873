//! Watches a connection's bytes for what h2 does not bound: what is begun must be finished in time, frames that ask for
//! nothing are rationed, and what is written must be taken.
//!
//! h2 waits for ever for the rest of a frame or of a header block, answers PING and SETTINGS as fast as they come, and
//! keeps what a client does not read. Only the nine bytes at the head of each frame are looked at.

use std::{
    future::Future as _,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

use super::frames::{Flood, Frames, Ration};

/// How long a client may take to close after us, and how much it may still send. An honest one has a round trip's worth
/// of window updates on the way.
const LINGER: Duration = Duration::from_millis(500);
const LINGER_BYTES: usize = 64 * 1024;

/// For how long nothing is read from who floods, before the connection is closed: whoever is cut off at once is back at once,
/// and a new connection costs more than one that is left alone.
const PENALTY: Duration = Duration::from_secs(1);

/// What the guard allows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// From the first byte of a frame or header block to its last; also until the first frame.
    pub(super) unfinished: Duration,
    /// How long bytes may wait to be written while the client takes none.
    pub(super) unread: Duration,
    /// See [`Frames`].
    pub(super) ration: Ration,
}

/// Why the guard ended a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum Offence {
    #[error("a frame or header block was not finished within {0:?}")]
    Unfinished(Duration),
    #[error("the client has read nothing for {0:?}")]
    Unread(Duration),
    #[error(transparent)]
    Flood(#[from] Flood),
}

impl From<Offence> for io::Error {
    fn from(offence: Offence) -> Self {
        Self::other(offence)
    }
}

/// Nothing is read until it is over, and then reading fails.
#[derive(Debug)]
struct Penalty {
    timer: Pin<Box<Sleep>>,
    flood: Flood,
}

impl Penalty {
    fn of(flood: Flood) -> Self {
        Self { timer: Box::pin(sleep(PENALTY)), flood }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.timer.as_mut().poll(cx).map(|()| Err(Offence::from(self.flood).into()))
    }
}

/// A stream under guard, from the HTTP/2 preface on.
#[derive(Debug)]
pub(super) struct Guarded<I> {
    io: I,
    limits: Limits,
    frames: Frames,
    /// Runs once the client has sent a flood.
    penalty: Option<Penalty>,
    /// Runs while the client owes the rest of something.
    reading: Option<Pin<Box<Sleep>>>,
    /// Runs while we wait for the client to read.
    writing: Option<Pin<Box<Sleep>>>,
    is_shut_down: bool,
    /// Runs while we wait for the client to close.
    lingering: Option<Pin<Box<Sleep>>>,
    lingering_left: usize,
}

impl<I> Guarded<I> {
    pub(super) fn new(io: I, limits: Limits) -> Self {
        Self {
            io,
            limits,
            frames: Frames::new(limits.ration),
            penalty: None,
            reading: None,
            writing: None,
            is_shut_down: false,
            lingering: None,
            lingering_left: LINGER_BYTES,
        }
    }

    /// Passes the outcome of a write on, unless none has succeeded for too long.
    fn written<T>(&mut self, cx: &mut Context<'_>, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        match outcome {
            Poll::Ready(result) => {
                self.writing = None;
                Poll::Ready(result)
            }
            Poll::Pending if is_over(&mut self.writing, self.limits.unread, cx) => {
                Poll::Ready(Err(Offence::Unread(self.limits.unread).into()))
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

/// Starts the timer if it does not run, and tells whether it has ended; if not, the task is woken when it does.
fn is_over(timer: &mut Option<Pin<Box<Sleep>>>, limit: Duration, cx: &mut Context<'_>) -> bool {
    timer.get_or_insert_with(|| Box::pin(sleep(limit))).as_mut().poll(cx).is_ready()
}

impl<I: AsyncRead + Unpin> AsyncRead for Guarded<I> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Some(penalty) = &mut this.penalty {
            return penalty.poll(cx);
        }
        let before = buffer.filled().len();
        match Pin::new(&mut this.io).poll_read(cx, buffer) {
            Poll::Ready(Ok(())) => {
                let finished = this.frames.finished();
                if let Err(flood) = this.frames.read(&buffer.filled()[before..]) {
                    // A read that fails has read nothing.
                    buffer.set_filled(before);
                    return this.penalty.insert(Penalty::of(flood)).poll(cx);
                }
                if this.frames.finished() != finished {
                    this.reading = None;
                }
                Poll::Ready(Ok(()))
            }
            Poll::Pending if this.frames.is_owed_more() && is_over(&mut this.reading, this.limits.unfinished, cx) => {
                Poll::Ready(Err(Offence::Unfinished(this.limits.unfinished).into()))
            }
            other => other,
        }
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Guarded<I> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.io).poll_write(cx, bytes);
        this.written(cx, outcome)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.io).poll_flush(cx);
        this.written(cx, outcome)
    }

    /// Then waits for the client to close as well: a socket that is closed with something unread is reset, and what was
    /// written last, such as answers, may never arrive.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.is_shut_down {
            let outcome = Pin::new(&mut this.io).poll_shutdown(cx);
            ready!(this.written(cx, outcome))?;
            this.is_shut_down = true;
        }
        // Few reads, as who floods has as much to throw away each time.
        let mut scrap = [0; LINGER_BYTES / 4];
        while this.lingering_left > 0 {
            let mut buffer = ReadBuf::new(&mut scrap);
            match Pin::new(&mut this.io).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                    this.lingering_left = this.lingering_left.saturating_sub(buffer.filled().len());
                }
                Poll::Ready(_) => break,
                Poll::Pending if is_over(&mut this.lingering, LINGER, cx) => break,
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Never: given the choice, h2 makes a `writev` of every small DATA frame. Without it, payloads below 1 KiB are copied
    /// behind one another, and many answers leave in one write.
    fn is_write_vectored(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream},
        time::Instant,
    };

    use super::{
        super::frames::{CONTINUATION, DATA, END_HEADERS, HEADERS, tests::*},
        *,
    };

    const LIMIT: Duration = Duration::from_secs(10);

    fn guarded(room: usize) -> (DuplexStream, Guarded<DuplexStream>) {
        let (client, server) = tokio::io::duplex(room);
        let ration = Ration { control_frames: 100, resets: 100 };
        (client, Guarded::new(server, Limits { unfinished: LIMIT, unread: 3 * LIMIT, ration }))
    }

    /// Reads until the guard or the client ends it; how long that took, and how it ended.
    async fn read_out(mut server: Guarded<DuplexStream>) -> (Duration, io::Result<usize>) {
        let start = Instant::now();
        let ended = server.read_to_end(&mut Vec::new()).await;
        (start.elapsed(), ended)
    }

    fn offence(ended: io::Result<usize>) -> Offence {
        *ended.unwrap_err().get_ref().unwrap().downcast_ref().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_preface_without_settings_is_waited_for_as_long_as_allowed() {
        let (mut client, server) = guarded(1024);
        client.write_all(PREFACE).await.unwrap();
        let (took, ended) = read_out(server).await;
        assert_eq!((took, offence(ended)), (LIMIT, Offence::Unfinished(LIMIT)));
    }

    #[tokio::test(start_paused = true)]
    async fn half_a_header_block_is_waited_for_as_long_as_allowed_however_it_drips() {
        let (mut client, server) = guarded(1024);
        client.write_all(&[PREFACE, SETTINGS, &frame(HEADERS, 0, 5)].concat()).await.unwrap();
        let drip = tokio::spawn(async move {
            loop {
                sleep(LIMIT / 4).await;
                if client.write_all(&frame(CONTINUATION, 0, 1)).await.is_err() {
                    return;
                }
            }
        });
        let (took, ended) = read_out(server).await;
        assert_eq!((took, offence(ended)), (LIMIT, Offence::Unfinished(LIMIT)));
        drip.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_has_finished_what_it_began_may_be_silent() {
        let (mut client, server) = guarded(1024);
        client.write_all(&[PREFACE, SETTINGS, &frame(HEADERS, END_HEADERS, 5)].concat()).await.unwrap();
        let silence = tokio::spawn(async move {
            sleep(100 * LIMIT).await;
            drop(client);
        });
        let (took, ended) = read_out(server).await;
        assert_eq!(took, 100 * LIMIT);
        ended.unwrap();
        silence.await.unwrap();
    }

    /// Each frame has its own time, even if no read ever ends between two.
    #[tokio::test(start_paused = true)]
    async fn a_slow_client_that_gets_on_is_not_left() {
        let (mut client, server) = guarded(1024);
        let bytes = [PREFACE, SETTINGS, &frame(HEADERS, END_HEADERS, 4)].concat();
        let body: Vec<u8> = (0..40).flat_map(|_| frame(DATA, 0, 11)).collect();
        let slow = tokio::spawn(async move {
            client.write_all(&bytes).await.unwrap();
            for piece in body.chunks(13) {
                client.write_all(piece).await.unwrap();
                sleep(LIMIT / 3).await;
            }
        });
        let (took, ended) = read_out(server).await;
        assert!(took > 10 * LIMIT, "{took:?}");
        ended.unwrap();
        slow.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_never_reads_is_left_after_its_time() {
        let (_client, mut server) = guarded(64);
        let start = Instant::now();
        let ended = server.write_all(&[0; 1000]).await.map(|()| 0);
        assert_eq!((start.elapsed(), offence(ended)), (3 * LIMIT, Offence::Unread(3 * LIMIT)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_reads_slowly_is_not_left() {
        let (mut client, mut server) = guarded(64);
        let reader = tokio::spawn(async move {
            let mut read = 0;
            while read < 1000 {
                sleep(2 * LIMIT).await;
                read += client.read(&mut [0; 64]).await.unwrap();
            }
        });
        server.write_all(&[0; 1000]).await.unwrap();
        reader.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_client_still_sends_is_read_until_it_closes_or_has_had_its_time() {
        for (closes_after, waited) in [(LINGER / 2, LINGER / 2), (2 * LINGER, LINGER)] {
            let (mut client, mut server) = guarded(1024);
            let leaving = tokio::spawn(async move {
                assert_eq!(client.read(&mut [0; 1]).await.unwrap(), 0, "told at once");
                client.write_all(&frame(PING, 0, 8)).await.unwrap();
                sleep(closes_after).await;
            });
            let start = Instant::now();
            server.shutdown().await.unwrap();
            assert_eq!(start.elapsed(), waited);
            leaving.await.unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_never_stops_sending_is_not_read_for_ever() {
        let (mut client, mut server) = guarded(1024);
        let flood = tokio::spawn(async move { while client.write_all(&[0; 1024]).await.is_ok() {} });
        server.shutdown().await.unwrap();
        drop(server);
        flood.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_is_left_alone_and_then_ends_the_connection() {
        let (mut client, server) = guarded(64 * 1024);
        client.write_all(&[PREFACE, SETTINGS, &frame(PING, 0, 8).repeat(200)].concat()).await.unwrap();
        let (after, ended) = read_out(server).await;
        assert_eq!((after, offence(ended)), (PENALTY, Offence::Flood(Flood::ControlFrames)));
    }
}
