//! The phases of the process's life, seen by whoever must act on them: health answers, waiting calls, connections.
//!
//! A phase is only ever followed by a later one.

use std::future::Future;

use tokio::sync::watch;

/// A phase. The order is the order in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Listening, but not ready: no credentials have been resolved yet.
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
}

impl Lifecycle {
    /// A process that has just started.
    pub fn new() -> Self {
        Self { phase: watch::Sender::new(Phase::Starting) }
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
        PhaseWatch { phase: self.phase.subscribe() }
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
}
