//! The phases of the process's life, seen by whoever must act on them: health answers, waiting calls, connections.
//!
//! A phase is only ever followed by a later one, but for one: a replica that turns out to be unfit to serve starts again.

use std::{
    future::Future,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::watch;

/// A phase. The order is the order in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Listening, but not ready: there are no credentials yet, or none that Glacier has accepted.
    Starting,
    /// Ready.
    Serving,
    /// Told to stop: not ready any more, still accepting, so that balancers can turn away first.
    LameDuck,
    /// Accepting no connection; those that are open are told to go away and their calls finish.
    Closing,
    /// Calls still waiting are answered now, with what there is.
    LastAnswers,
}

/// Moves the process from phase to phase. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Lifecycle {
    phase: watch::Sender<Phase>,
    reason: Reason,
}

/// Why the process is not ready, for people.
#[derive(Debug, Clone)]
struct Reason(Arc<Mutex<Arc<str>>>);

impl Reason {
    fn set(&self, reason: &str) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = reason.into();
    }

    fn get(&self) -> Arc<str> {
        Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Lifecycle {
    /// A process that has just started.
    pub fn new() -> Self {
        let reason = Reason(Arc::new(Mutex::new("no AWS credentials yet".into())));
        Self { phase: watch::Sender::new(Phase::Starting), reason }
    }

    /// Not ready, because of `reason`, unless the process is about to end. Holds until [`Phase::Serving`] is entered.
    pub fn start_again(&self, reason: &str) {
        self.reason.set(reason);
        self.phase.send_if_modified(|phase| {
            let was_ready = *phase == Phase::Serving;
            if was_ready {
                *phase = Phase::Starting;
            }
            was_ready
        });
    }

    /// Enters a phase; does nothing if that phase or a later one has been reached.
    pub fn advance(&self, next: Phase) {
        self.phase.send_if_modified(|phase| {
            let later = next > *phase;
            if later {
                *phase = next;
            }
            later
        });
    }

    /// A view for somebody who must act on phases.
    pub fn watch(&self) -> PhaseWatch {
        PhaseWatch { phase: self.phase.subscribe(), reason: self.reason.clone() }
    }
}

impl Default for Lifecycle {
    fn default() -> Self {
        Self::new()
    }
}

/// Sees the phases. Cheap to clone.
#[derive(Debug, Clone)]
pub struct PhaseWatch {
    phase: watch::Receiver<Phase>,
    reason: Reason,
}

impl PhaseWatch {
    /// The phase at this moment.
    pub fn current(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Whether new work is welcome.
    pub fn is_ready(&self) -> bool {
        self.current() == Phase::Serving
    }

    /// Why new work is not welcome, for people; `None` while it is.
    pub fn why_not_ready(&self) -> Option<Arc<str>> {
        match self.current() {
            Phase::Starting => Some(self.reason.get()),
            Phase::Serving => None,
            Phase::LameDuck | Phase::Closing | Phase::LastAnswers => Some("shutting down".into()),
        }
    }

    /// Resolves once `phase` or a later one is reached; never, if the process ends first.
    pub fn reached(&self, phase: Phase) -> impl Future<Output = ()> + Send + use<> {
        let mut watch = self.phase.clone();
        async move {
            if watch.wait_for(|current| *current >= phase).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// The channel itself, for streams of changes.
    pub fn receiver(&self) -> watch::Receiver<Phase> {
        self.phase.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn phases_only_go_forward() {
        let lifecycle = Lifecycle::new();
        let watch = lifecycle.watch();
        lifecycle.advance(Phase::LameDuck);
        lifecycle.advance(Phase::Serving);
        assert_eq!(watch.current(), Phase::LameDuck);
        watch.reached(Phase::Serving).await;
        lifecycle.advance(Phase::Closing);
        watch.reached(Phase::Closing).await;
    }

    /// C14
    #[test]
    fn what_is_ready_can_start_again_and_what_ends_cannot() {
        let lifecycle = Lifecycle::new();
        let watch = lifecycle.watch();
        lifecycle.advance(Phase::Serving);
        assert_eq!(watch.why_not_ready(), None);
        lifecycle.start_again("because");
        assert_eq!((watch.current(), watch.why_not_ready().as_deref()), (Phase::Starting, Some("because")));
        lifecycle.advance(Phase::Serving);
        assert!(watch.is_ready());
        lifecycle.advance(Phase::LameDuck);
        lifecycle.start_again("because");
        assert_eq!((watch.current(), watch.why_not_ready().as_deref()), (Phase::LameDuck, Some("shutting down")));
    }
}
