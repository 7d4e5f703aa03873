//! Answers that the client does not take: it reads what is written, but grants no HTTP/2 window for them.
//!
//! h2 keeps them for as long as the connection lives, and no byte waits to be written, so that the guard sees nothing. So
//! what the bodies of answers give is followed until h2 lets go of it, which is when it is written. A stream that has
//! nothing to say, such as an open `Health.Watch`, owes nothing. What is given carries one of two tokens, of which the
//! other one's turn comes when the time is over: whatever then still has the earlier one is too old. So a client may take
//! as long as the limit, and at most twice as long.

use std::{
    future::Future as _,
    io::IoSlice,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, Bytes};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::{
    task::unconstrained,
    time::{Sleep, sleep},
};

/// What the bodies of one connection have given and its client has not taken. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Untaken(Arc<Turns>);

#[derive(Debug, Default)]
struct Turns {
    second: AtomicBool,
    tokens: [Token; 2],
}

/// How many there are is how much is untaken.
type Token = Arc<()>;

impl Untaken {
    /// The same body, whose data are followed.
    pub(super) fn follow<B>(&self, body: B) -> Followed<B> {
        Followed { body, untaken: self.clone() }
    }

    fn token(&self) -> Token {
        Arc::clone(&self.0.tokens[self.turn()])
    }

    fn turn(&self) -> usize {
        self.0.second.load(Ordering::Relaxed).into()
    }

    fn take_turns(&self) {
        self.0.second.fetch_not(Ordering::Relaxed);
    }

    /// Whether something is untaken that was given in this turn.
    fn has(&self, turn: usize) -> bool {
        Arc::strong_count(&self.0.tokens[turn]) > 1
    }
}

/// Waits for the client. Polled with its connection, and after it.
#[derive(Debug)]
pub(super) struct Patience {
    untaken: Untaken,
    limit: Duration,
    /// Runs while something is untaken.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Patience {
    pub(super) fn new(untaken: Untaken, limit: Duration) -> Self {
        Self { untaken, limit, timer: None }
    }

    /// How long the client may take.
    pub(super) fn limit(&self) -> Duration {
        self.limit
    }

    /// Ready when something has been untaken for too long. To be polled after whatever may give or take something, which may
    /// have used up what tokio lets a task do at a time: the timer counts all the same.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Self { untaken, limit, timer } = self;
        if !untaken.has(0) && !untaken.has(1) {
            *timer = None;
            return Poll::Pending;
        }
        loop {
            let running = timer.get_or_insert_with(|| {
                untaken.take_turns();
                Box::pin(sleep(*limit))
            });
            ready!(pin!(unconstrained(running.as_mut())).poll(cx));
            if untaken.has(1 - untaken.turn()) {
                return Poll::Ready(());
            }
            *timer = None;
        }
    }
}

/// A body whose data are followed.
#[derive(Debug)]
pub(super) struct Followed<B> {
    body: B,
    untaken: Untaken,
}

impl<B: HttpBody + Unpin> HttpBody for Followed<B> {
    type Data = Given<B::Data>;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let Self { body, untaken } = self.get_mut();
        let given = |data| Given { data, _token: untaken.token() };
        Pin::new(body).poll_frame(cx).map(|frame| frame.map(|frame| frame.map(|frame| frame.map_data(given))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Data that are untaken until this is dropped.
#[derive(Debug)]
pub(super) struct Given<D> {
    data: D,
    _token: Token,
}

impl<D: Buf> Buf for Given<D> {
    fn remaining(&self) -> usize {
        self.data.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.data.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.data.advance(count);
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        self.data.chunks_vectored(slices)
    }

    fn copy_to_bytes(&mut self, length: usize) -> Bytes {
        self.data.copy_to_bytes(length)
    }
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, future::poll_fn};

    use futures_util::poll;
    use http_body_util::{BodyExt as _, Full, StreamBody};
    use tokio::{
        task::coop::{consume_budget, has_budget_remaining},
        time::Instant,
    };

    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);

    async fn given(untaken: &Untaken) -> Given<Bytes> {
        let mut body = untaken.follow(Full::new(Bytes::from_static(b"answer")));
        let given = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert!(body.is_end_stream());
        given
    }

    fn patience() -> (Untaken, Patience) {
        let untaken = Untaken::default();
        (untaken.clone(), Patience::new(untaken, LIMIT))
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_never_taken_is_waited_for_as_long_as_allowed() {
        let (untaken, mut patience) = patience();
        let answer = given(&untaken).await;
        let start = Instant::now();
        poll_fn(|cx| patience.poll(cx)).await;
        assert_eq!(start.elapsed(), LIMIT);
        drop(answer);
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_noticed_by_a_task_that_has_done_all_that_it_may_at_a_time() {
        let (untaken, mut patience) = patience();
        let answer = given(&untaken).await;
        assert!(poll!(poll_fn(|cx| patience.poll(cx))).is_pending());
        tokio::time::advance(LIMIT).await;
        while has_budget_remaining() {
            consume_budget().await;
        }
        assert!(poll!(poll_fn(|cx| patience.poll(cx))).is_ready());
        drop(answer);
    }

    /// However much else is taken meanwhile, one answer that is not is enough.
    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_some_is_not_waited_for_longer_than_twice_as_long() {
        let (untaken, mut patience) = patience();
        let mut last = given(&untaken).await;
        assert!(poll!(poll_fn(|cx| patience.poll(cx))).is_pending());
        let (held, start) = (given(&untaken).await, Instant::now());
        while poll!(poll_fn(|cx| patience.poll(cx))).is_pending() {
            // The next one is there before the last one is taken, so that there always is something untaken.
            last = given(&untaken).await;
            tokio::time::advance(LIMIT / 10).await;
        }
        assert!((LIMIT..=2 * LIMIT).contains(&start.elapsed()), "{:?}", start.elapsed());
        drop((last, held));
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_client_that_takes_everything_in_time_is_not_left() {
        let (untaken, mut patience) = patience();
        let mut last = given(&untaken).await;
        for _ in 0..1000 {
            assert!(poll!(poll_fn(|cx| patience.poll(cx))).is_pending());
            tokio::time::advance(LIMIT / 3).await;
            assert!(poll!(poll_fn(|cx| patience.poll(cx))).is_pending());
            let next = given(&untaken).await;
            tokio::time::advance(LIMIT / 3).await;
            drop(last);
            last = next;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_has_nothing_to_say_owes_nothing() {
        let (untaken, mut patience) = patience();
        let mut silent =
            untaken.follow(StreamBody::new(futures_util::stream::pending::<Result<Frame<Bytes>, Infallible>>()));
        assert!(poll!(silent.frame()).is_pending());
        tokio::time::advance(100 * LIMIT).await;
        assert!(poll!(poll_fn(|cx| patience.poll(cx))).is_pending());
    }

    #[tokio::test]
    async fn what_is_given_is_what_the_body_gave() {
        let (untaken, _) = patience();
        let mut answer = given(&untaken).await;
        answer.advance(1);
        assert_eq!((answer.remaining(), answer.chunk()), (5, &b"nswer"[..]));
        assert_eq!(answer.chunks_vectored(&mut [IoSlice::new(&[]); 2]), 1);
        assert_eq!(answer.copy_to_bytes(5), "nswer");
    }
}
