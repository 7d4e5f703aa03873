//! The one place where the wall clock is read.
//!
//! Ages and deadlines use tokio's monotonic clock, which no operator can set back and which tests can pause. The wall
//! clock is only for what leaves the process or comes from outside: dates in answers, dates in signatures.

use std::{fmt, sync::Arc, time::SystemTime};

use tokio::time::Instant;

/// One moment on both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// For ages and deadlines.
    pub instant: Instant,
    /// For dates.
    pub wall: SystemTime,
}

/// Reads both clocks. Cheap to clone.
#[derive(Clone)]
pub struct Clock {
    wall: Arc<dyn Fn() -> SystemTime + Send + Sync>,
}

impl Clock {
    /// The machine's clocks.
    #[expect(clippy::disallowed_methods, reason = "this is the one place")]
    pub fn system() -> Self {
        Self::with_wall(SystemTime::now)
    }

    /// A wall clock of the caller's making, for tests that pause or move time.
    pub fn with_wall(wall: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        Self { wall: Arc::new(wall) }
    }

    /// This moment.
    pub fn now(&self) -> Moment {
        Moment { instant: Instant::now(), wall: (self.wall)() }
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}
