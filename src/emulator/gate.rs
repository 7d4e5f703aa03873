//! Gates hold answers back until a test lets them go, so that tests order events instead of waiting for them.

use std::sync::Arc;

use tokio::sync::watch;

/// Open, or shut. Clones are the same gate.
#[derive(Debug, Clone)]
pub struct Gate {
    shut: Arc<watch::Sender<bool>>,
}

impl Gate {
    /// A gate that is shut.
    pub fn shut() -> Self {
        Self { shut: Arc::new(watch::Sender::new(true)) }
    }

    /// Lets everything through that waits, and all that comes, for good.
    pub fn open(&self) {
        self.shut.send_replace(false);
    }

    pub(crate) fn is_shut(&self) -> bool {
        *self.shut.borrow()
    }

    pub(crate) async fn opened(&self) {
        // An error would mean that nobody can open the gate; we hold the sender ourselves.
        let _ = self.shut.subscribe().wait_for(|shut| !shut).await;
    }
}

/// Holds all answers back until it is dropped.
#[derive(Debug)]
#[must_use = "dropping it lets the answers go"]
pub struct Hold {
    pub(crate) gate: Gate,
}

impl Hold {
    /// Lets the answers go.
    pub fn release(self) {
        drop(self);
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.gate.open();
    }
}
