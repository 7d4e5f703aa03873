//! Where the streams of a connection run: on the connection's own task, as long as they are ready at once.
//!
//! hyper hands each stream's future to an executor, which as a rule makes a task of it: an allocation, a trip through the
//! scheduler's queue, a wake-up of the task, and one of the connection when the answer is there. An answer from the cache
//! is ready at the first poll, and costs less than that trip. So the futures are queued, and polled once right after the
//! connection was; only those that must wait for something become tasks. The answers of all that were ready leave in one
//! write.

use std::{
    future::Future,
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use hyper::rt::Executor;

type Stream = Pin<Box<dyn Future<Output = ()> + Send>>;

/// How often a connection and its streams are polled in turn before other tasks get theirs: a client that always has its
/// next calls ready would keep the thread. A turn is at most as many calls as a connection may have at once.
const TURNS: usize = 8;

/// Queues futures for [`Prompt::run`]. Clones share the queue; the lock is never contended, as hyper queues while it is
/// polled by the task that runs the queue.
#[derive(Clone, Default)]
pub(super) struct Prompt {
    queue: Arc<Mutex<Vec<Stream>>>,
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Prompt {
    fn execute(&self, stream: F) {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).push(Box::pin(stream));
    }
}

impl Prompt {
    /// Polls `connection` and the streams that it starts, until neither has anything to do, or it is others' turn.
    pub(super) fn poll<C: Future + Unpin>(&self, connection: &mut C, cx: &mut Context<'_>) -> Poll<C::Output> {
        for _ in 0..TURNS {
            let polled = Pin::new(&mut *connection).poll(cx);
            // What they have answered is still to be written, so the connection is polled again.
            if polled.is_ready() || !self.run(cx) {
                return polled;
            }
        }
        // Others want the thread as well.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Polls each queued stream once and makes tasks of those that are not finished; `false` if there was none.
    fn run(&self, cx: &mut Context<'_>) -> bool {
        let mut streams = mem::take(&mut *self.queue.lock().unwrap_or_else(PoisonError::into_inner));
        if streams.is_empty() {
            return false;
        }
        for mut stream in streams.drain(..) {
            // A panic ends its stream alone, as it would in a task of its own.
            match catch_unwind(AssertUnwindSafe(|| stream.as_mut().poll(cx))) {
                Ok(Poll::Pending) => drop(tokio::spawn(stream)),
                Ok(Poll::Ready(())) | Err(_) => {}
            }
        }
        // The room is used again.
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.is_empty() {
            *queue = streams;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::{pending, poll_fn, ready},
        sync::atomic::{AtomicUsize, Ordering},
    };

    use tokio::sync::oneshot;

    use super::*;

    /// A connection that starts these streams when it is first polled, and ends when it is told.
    fn connection(
        prompt: &Prompt,
        streams: Vec<Stream>,
        end: oneshot::Receiver<()>,
    ) -> Pin<Box<dyn Future<Output = ()>>> {
        let prompt = prompt.clone();
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
    async fn what_is_ready_runs_at_once_and_what_waits_becomes_a_task() {
        let (prompt, done, (wake, woken), (_end, ended)) =
            (Prompt::default(), Arc::new(AtomicUsize::new(0)), oneshot::channel(), oneshot::channel());
        let waits = counting(&done, async { woken.await.unwrap() });
        let streams = vec![counting(&done, ready(())), waits, counting(&done, ready(()))];
        let mut connection = connection(&prompt, streams, ended);
        // One poll, without a turn of the scheduler.
        poll_fn(|cx| {
            assert!(prompt.poll(&mut connection, cx).is_pending());
            Poll::Ready(())
        })
        .await;
        assert_eq!(done.load(Ordering::SeqCst), 2);
        wake.send(()).unwrap();
        // The connection is not polled any more; the stream goes on by itself.
        while done.load(Ordering::SeqCst) < 3 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn the_connection_is_polled_again_after_streams_ran() {
        let prompt = Prompt::default();
        let mut polls = 0;
        let mut connection = Box::pin(poll_fn(|_| {
            polls += 1;
            if polls == 1 {
                prompt.execute(ready(()));
            }
            Poll::<()>::Pending
        }));
        poll_fn(|cx| {
            assert!(prompt.poll(&mut connection, cx).is_pending());
            Poll::Ready(())
        })
        .await;
        drop(connection);
        assert_eq!(polls, 2);
    }

    #[tokio::test]
    async fn a_panic_ends_its_stream_alone() {
        let (prompt, done, (_end, ended)) = (Prompt::default(), Arc::new(AtomicUsize::new(0)), oneshot::channel());
        let panics = counting(&done, async { panic!("scripted") });
        let streams = vec![panics, counting(&done, ready(())), Box::pin(pending())];
        let mut connection = connection(&prompt, streams, ended);
        poll_fn(|cx| {
            assert!(prompt.poll(&mut connection, cx).is_pending());
            Poll::Ready(())
        })
        .await;
        assert_eq!(done.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn a_connection_that_always_has_another_stream_lets_others_have_the_thread() {
        let prompt = Prompt::default();
        let polls = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&polls);
        let mut connection = Box::pin(poll_fn(|_| {
            counted.fetch_add(1, Ordering::SeqCst);
            prompt.execute(ready(()));
            Poll::<()>::Pending
        }));
        let driving = poll_fn(|cx| prompt.poll(&mut connection, cx));
        tokio::select! {
            biased;
            () = driving => unreachable!("it never ends"),
            () = async {
                while polls.load(Ordering::SeqCst) < 3 * TURNS {
                    tokio::task::yield_now().await;
                }
            } => {}
        }
        assert_eq!(polls.load(Ordering::SeqCst), 3 * TURNS, "it is polled again by itself");
    }

    #[tokio::test]
    async fn the_end_of_the_connection_is_the_end() {
        let (prompt, (end, ended)) = (Prompt::default(), oneshot::channel());
        let mut connection = connection(&prompt, vec![Box::pin(ready(()))], ended);
        end.send(()).unwrap();
        poll_fn(|cx| prompt.poll(&mut connection, cx)).await;
    }
}
