//! Where the streams of a connection run: on the connection's own task.
//!
//! hyper hands each stream's future to an executor, which as a rule makes a task of it: an allocation, a trip through the
//! scheduler's queue, a wake-up of the task, and one of the connection when the answer is there. An answer from the cache
//! is ready at the first poll, and costs less than that trip. So the futures are queued, and polled once right after the
//! connection was; those that must wait for something are polled again when it is there, still here. The answers of all
//! that were ready leave in one write, also those of many callers who waited for the same fetch: as tasks of their own, each
//! would have the connection write before the next is polled.

use std::{
    future::{Future, poll_fn},
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use futures_util::{FutureExt as _, StreamExt as _, future::CatchUnwind, stream::FuturesUnordered};
use hyper::rt::Executor;
use tokio::task::unconstrained;

use super::turn::TurnTimer;

type Stream = Pin<Box<dyn Future<Output = ()> + Send>>;

/// How often a connection and its streams are polled in turn before other tasks get theirs: a client that always has its
/// next calls ready would keep the thread. A turn is at most as many calls as a connection may have at once.
const TURNS: usize = 8;

/// Queues futures for [`Streams`]. Clones share the queue; the lock is never contended, as hyper queues while it is polled
/// by the task that empties the queue.
#[derive(Clone, Default)]
pub(super) struct Prompt {
    queue: Arc<Mutex<Vec<Stream>>>,
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Prompt {
    fn execute(&self, stream: F) {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).push(Box::pin(stream));
    }
}

/// The streams of one connection. They end with it, so it must be dropped first.
#[derive(Default)]
pub(super) struct Streams {
    prompt: Prompt,
    timer: TurnTimer,
    /// Polled once, and not finished. A panic when polled ends its stream alone, as it would in a task of its own.
    waiting: FuturesUnordered<CatchUnwind<AssertUnwindSafe<Stream>>>,
}

impl Streams {
    /// What hyper hands streams to.
    pub(super) fn executor(&self) -> Prompt {
        self.prompt.clone()
    }

    /// What hyper asks for the time.
    pub(super) fn timer(&self) -> TurnTimer {
        self.timer.clone()
    }

    /// Polls `connection` and the streams that it starts, until neither has anything to do, or it is others' turn.
    pub(super) fn poll<C: Future + Unpin>(&mut self, connection: &mut C, cx: &mut Context<'_>) -> Poll<C::Output> {
        self.timer.begin();
        for _ in 0..TURNS {
            let polled = Pin::new(&mut *connection).poll(cx);
            if polled.is_ready() {
                return polled;
            }
            // What they have answered is still to be written, so the connection is polled again.
            if !self.poll_streams(cx) {
                return Poll::Pending;
            }
        }
        // Others want the thread as well.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Polls the streams that can get on; `false` if none began or ended.
    ///
    /// They take nothing from what tokio lets their task do at a time: many whose answer came at once would use it up, and
    /// the connection could write what they gave only after those of all other connections had done the same.
    fn poll_streams(&mut self, cx: &mut Context<'_>) -> bool {
        let streams = poll_fn(|cx| {
            let (some_began, some_ended) = (self.begin(cx), self.go_on(cx));
            Poll::Ready(some_began || some_ended)
        });
        matches!(pin!(unconstrained(streams)).poll(cx), Poll::Ready(true))
    }

    /// Polls each queued stream once; `false` if there was none.
    fn begin(&mut self, cx: &mut Context<'_>) -> bool {
        let mut streams = mem::take(&mut *self.prompt.queue.lock().unwrap_or_else(PoisonError::into_inner));
        if streams.is_empty() {
            return false;
        }
        for mut stream in streams.drain(..) {
            match catch_unwind(AssertUnwindSafe(|| stream.as_mut().poll(cx))) {
                Ok(Poll::Pending) => self.waiting.push(AssertUnwindSafe(stream).catch_unwind()),
                Ok(Poll::Ready(())) | Err(_) => {}
            }
        }
        // The room is used again.
        let mut queue = self.prompt.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.is_empty() {
            *queue = streams;
        }
        true
    }

    /// Polls the waiting streams for which something has come; `false` if none ended. One that only gets on has woken the
    /// connection by what it sent.
    fn go_on(&mut self, cx: &mut Context<'_>) -> bool {
        let before = self.waiting.len();
        while let Poll::Ready(Some(_)) = self.waiting.poll_next_unpin(cx) {}
        self.waiting.len() < before
    }
}

impl Drop for Streams {
    /// hyper may queue streams in the very poll that ends the connection. They hold the queue that holds them: it is emptied
    /// here, or they would never be dropped.
    fn drop(&mut self) {
        let never_begun = mem::take(&mut *self.prompt.queue.lock().unwrap_or_else(PoisonError::into_inner));
        // Whatever their ends do, the lock is free.
        drop(never_begun);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::{pending, ready},
        sync::atomic::{AtomicUsize, Ordering},
    };

    use futures_util::poll;
    use tokio::{
        sync::oneshot,
        task::{
            coop::{consume_budget, has_budget_remaining},
            yield_now,
        },
    };

    use super::*;

    /// A connection that starts these streams when it is first polled, and ends when it is told.
    fn connection(of: &Streams, streams: Vec<Stream>, end: oneshot::Receiver<()>) -> Pin<Box<dyn Future<Output = ()>>> {
        let prompt = of.executor();
        Box::pin(async move {
            for stream in streams {
                prompt.execute(stream);
            }
            let _ = end.await;
        })
    }

    fn counting(count: &Arc<AtomicUsize>, then: impl Future<Output = ()> + Send + 'static) -> Stream {
        let count = Arc::clone(count);
        Box::pin(async move {
            then.await;
            count.fetch_add(1, Ordering::SeqCst);
        })
    }

    #[tokio::test]
    async fn what_is_ready_runs_at_once_and_what_waits_goes_on_when_it_is_woken() {
        let (mut streams, done, (_end, ended)) =
            (Streams::default(), Arc::new(AtomicUsize::new(0)), oneshot::channel());
        let (wake, woken): (Vec<_>, Vec<_>) = (0..300).map(|_| oneshot::channel()).unzip();
        let mut some = vec![counting(&done, ready(())), counting(&done, ready(()))];
        some.extend(woken.into_iter().map(|woken| counting(&done, async { woken.await.unwrap() })));
        let mut connection = connection(&streams, some, ended);
        let mut driving = pin!(poll_fn(|cx| streams.poll(&mut connection, cx)));
        // One poll, without a turn of the scheduler.
        assert!(poll!(driving.as_mut()).is_pending());
        assert_eq!(done.load(Ordering::SeqCst), 2);
        for wake in wake {
            wake.send(()).unwrap();
        }
        assert!(poll!(driving.as_mut()).is_pending());
        assert_eq!(done.load(Ordering::SeqCst), 302);
    }

    #[tokio::test]
    async fn however_much_comes_at_once_the_connection_may_write_what_answers_it() {
        let mut streams = Streams::default();
        let (prompt, may_write) = (streams.executor(), AtomicUsize::new(0));
        let mut connection = Box::pin(poll_fn(|_| {
            if may_write.fetch_add(has_budget_remaining().into(), Ordering::SeqCst) == 0 {
                // More than tokio lets one task do at a time.
                (0..300).for_each(|_| prompt.execute(consume_budget()));
            }
            Poll::<()>::Pending
        }));
        assert!(poll!(poll_fn(|cx| streams.poll(&mut connection, cx))).is_pending());
        drop(connection);
        assert_eq!(may_write.into_inner(), 2);
    }

    #[tokio::test]
    async fn the_connection_is_polled_again_after_streams_ran() {
        let mut streams = Streams::default();
        let (prompt, mut polls) = (streams.executor(), 0);
        let mut connection = Box::pin(poll_fn(|_| {
            polls += 1;
            if polls == 1 {
                prompt.execute(ready(()));
            }
            Poll::<()>::Pending
        }));
        assert!(poll!(poll_fn(|cx| streams.poll(&mut connection, cx))).is_pending());
        drop(connection);
        assert_eq!(polls, 2);
    }

    #[tokio::test]
    async fn a_panic_ends_its_stream_alone() {
        let (mut streams, done, (_end, ended)) =
            (Streams::default(), Arc::new(AtomicUsize::new(0)), oneshot::channel());
        let at_once = counting(&done, async { panic!("scripted") });
        let later = counting(&done, async {
            yield_now().await;
            panic!("scripted")
        });
        let gets_on = counting(&done, yield_now());
        let some = vec![at_once, later, gets_on, counting(&done, ready(())), Box::pin(pending())];
        let mut connection = connection(&streams, some, ended);
        let mut driving = pin!(poll_fn(|cx| streams.poll(&mut connection, cx)));
        while done.load(Ordering::SeqCst) < 2 {
            assert!(poll!(driving.as_mut()).is_pending());
            yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_connection_that_always_has_another_stream_lets_others_have_the_thread() {
        let mut streams = Streams::default();
        let (prompt, polls) = (streams.executor(), Arc::new(AtomicUsize::new(0)));
        let counted = Arc::clone(&polls);
        let mut connection = Box::pin(poll_fn(|_| {
            counted.fetch_add(1, Ordering::SeqCst);
            prompt.execute(ready(()));
            Poll::<()>::Pending
        }));
        let driving = poll_fn(|cx| streams.poll(&mut connection, cx));
        tokio::select! {
            biased;
            () = driving => unreachable!("it never ends"),
            () = async {
                while polls.load(Ordering::SeqCst) < 3 * TURNS {
                    yield_now().await;
                }
            } => {}
        }
        assert_eq!(polls.load(Ordering::SeqCst), 3 * TURNS, "it is polled again by itself");
    }

    /// Each holds the executor, as hyper's streams do.
    #[tokio::test]
    async fn streams_that_come_with_the_end_of_the_connection_are_dropped_with_it() {
        let (mut streams, held) = (Streams::default(), Arc::new(()));
        let prompt = streams.executor();
        let mut connection = Box::pin(poll_fn(|_| {
            for _ in 0..3 {
                let holds = (prompt.clone(), Arc::clone(&held));
                prompt.execute(async move {
                    pending::<()>().await;
                    drop(holds);
                });
            }
            Poll::Ready(())
        }));
        poll_fn(|cx| streams.poll(&mut connection, cx)).await;
        drop((connection, streams));
        assert_eq!(Arc::strong_count(&held), 1);
    }

    #[tokio::test]
    async fn the_end_of_the_connection_is_the_end() {
        let (mut streams, (end, ended)) = (Streams::default(), oneshot::channel());
        let mut connection = connection(&streams, vec![Box::pin(ready(()))], ended);
        end.send(()).unwrap();
        poll_fn(|cx| streams.poll(&mut connection, cx)).await;
    }
}
