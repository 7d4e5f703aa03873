//! The HTTP/2 connection preface, awaited with a time limit that hyper does not have.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf},
    time::timeout,
};

/// What every HTTP/2 client sends first (RFC 9113 §3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Why a connection is not served.
#[derive(Debug, thiserror::Error)]
pub(super) enum PrefaceError {
    #[error("no HTTP/2 preface within {0:?}")]
    Late(Duration),
    #[error("not HTTP/2")]
    NotHttp2,
    #[error("closed before the HTTP/2 preface: {0}")]
    Closed(#[from] io::Error),
}

/// Reads the preface from `io`, and gives back a stream that begins with it.
pub(super) async fn expect<I>(mut io: I, limit: Duration) -> Result<Replayed<I>, PrefaceError>
where
    I: AsyncRead + Unpin,
{
    let read = async {
        let mut seen = [0; PREFACE.len()];
        let mut filled = 0;
        while filled < PREFACE.len() {
            let read = io.read(&mut seen[filled..]).await?;
            if read == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            filled += read;
            // Judged as it comes: a client that speaks something else is turned away at its first words.
            if seen[..filled] != PREFACE[..filled] {
                return Err(PrefaceError::NotHttp2);
            }
        }
        Ok(())
    };
    timeout(limit, read).await.map_err(|_| PrefaceError::Late(limit))??;
    Ok(Replayed { preface: PREFACE, io })
}

/// A stream whose first bytes, already read, are given once more.
#[derive(Debug)]
pub(super) struct Replayed<I> {
    preface: &'static [u8],
    io: I,
}

impl<I: AsyncRead + Unpin> AsyncRead for Replayed<I> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.preface.is_empty() {
            return Pin::new(&mut self.io).poll_read(cx, buffer);
        }
        let (now, later) = self.preface.split_at(self.preface.len().min(buffer.remaining()));
        buffer.put_slice(now);
        self.preface = later;
        Poll::Ready(Ok(()))
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Replayed<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn a_preface_in_pieces_is_read_and_replayed() {
        let (mut client, server) = tokio::io::duplex(64);
        let (replayed, ()) = tokio::join!(expect(server, LIMIT), async {
            for piece in PREFACE.chunks(5) {
                client.write_all(piece).await.unwrap();
            }
            client.write_all(b"rest").await.unwrap();
            client.shutdown().await.unwrap();
        });
        let mut all = Vec::new();
        replayed.unwrap().read_to_end(&mut all).await.unwrap();
        assert_eq!(all, [PREFACE.as_slice(), b"rest"].concat());
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_sends_half_a_preface_is_left_after_the_limit() {
        let (mut client, server) = tokio::io::duplex(64);
        client.write_all(&PREFACE[..12]).await.unwrap();
        assert!(matches!(expect(server, LIMIT).await, Err(PrefaceError::Late(LIMIT))));
    }

    #[tokio::test(start_paused = true)]
    async fn http_1_is_turned_away_at_its_first_bytes() {
        let (mut client, server) = tokio::io::duplex(64);
        client.write_all(b"GET / ").await.unwrap();
        assert!(matches!(expect(server, LIMIT).await, Err(PrefaceError::NotHttp2)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_leaves_is_not_waited_for() {
        let (client, server) = tokio::io::duplex(64);
        drop(client);
        assert!(matches!(expect(server, LIMIT).await, Err(PrefaceError::Closed(_))));
    }
}
