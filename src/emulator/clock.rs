//! The emulator's time: how fast jobs progress, and what the server's own clock says.
//!
//! Three things are kept apart here:
//! - **Dates** that the emulator reports (`CreationDate`, `CompletionDate`) are real wall-clock dates, so they are never
//!   in the caller's future.
//! - **Progress** is how far jobs have come. It runs `speed` times as fast as the wall clock and can be pushed forward,
//!   so a Standard job of four hours takes four seconds at speed 3,600, or no time at all in a test.
//! - The **server's clock** is the wall clock plus an offset. It shows in the `Date` header and decides whether a
//!   signature is too old: an emulator with an offset is what a caller with a wrong clock sees.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use time::OffsetDateTime;

use crate::clock::Clock;

/// How far jobs have come since the clock was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Progress(Duration);

impl Progress {
    pub(crate) fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration))
    }
}

/// The emulator's time. Clones share it.
#[derive(Debug, Clone)]
pub struct EmulatedClock {
    clock: Clock,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    /// Never empty. A new stretch begins when the speed changes or the progress is pushed, and the old ones stay:
    /// the date at which a job completed must not change when the speed does.
    stretches: Vec<Stretch>,
    server_offset: time::Duration,
}

/// Progress as a straight line: `progress + speed × (now − wall)`.
#[derive(Debug, Clone, Copy)]
struct Stretch {
    wall: SystemTime,
    progress: Progress,
    speed: f64,
}

impl Stretch {
    fn progress_at(&self, wall: SystemTime) -> Progress {
        // A wall clock that was set back stops the progress, it does not undo it.
        let elapsed = wall.duration_since(self.wall).unwrap_or_default();
        self.progress.after(scaled(elapsed, self.speed))
    }

    fn date_of(&self, target: Progress) -> Option<SystemTime> {
        let missing = target.0.saturating_sub(self.progress.0);
        let wait = Duration::try_from_secs_f64(missing.as_secs_f64() / self.speed).ok()?;
        self.wall.checked_add(wait)
    }
}

fn scaled(duration: Duration, factor: f64) -> Duration {
    Duration::try_from_secs_f64(duration.as_secs_f64() * factor).unwrap_or(Duration::MAX)
}

/// Anything that is not a positive, finite factor stops the progress.
fn legal(speed: f64) -> f64 {
    if speed.is_finite() && speed > 0.0 { speed } else { 0.0 }
}

impl EmulatedClock {
    /// Progress at the pace of the given clock, which also dates everything.
    pub fn new(clock: Clock) -> Self {
        let start = Stretch { wall: clock.now().wall, progress: Progress(Duration::ZERO), speed: 1.0 };
        let state = State { stretches: vec![start], server_offset: time::Duration::ZERO };
        Self { clock, state: Arc::new(Mutex::new(state)) }
    }

    /// Progress at real pace on the machine's clock.
    pub fn real() -> Self {
        Self::new(Clock::system())
    }

    /// This clock at another speed; see [`set_speed`](Self::set_speed).
    #[must_use]
    pub fn with_speed(self, factor: f64) -> Self {
        self.set_speed(factor);
        self
    }

    /// From now on jobs progress `factor` seconds in each second of the wall clock. Zero (or anything else that is not a
    /// positive, finite number) stops them: they then progress by [`advance`](Self::advance) only.
    pub fn set_speed(&self, factor: f64) {
        self.begin_stretch(|stretch| stretch.speed = legal(factor));
    }

    /// Pushes every job's progress forward at once. What completes in the leap is dated now.
    pub fn advance(&self, progress: Duration) {
        self.begin_stretch(|stretch| stretch.progress = stretch.progress.after(progress));
    }

    /// Sets how far the server's clock is ahead (positive) of the wall clock, or behind it.
    pub fn set_server_offset(&self, offset: time::Duration) {
        self.state().server_offset = offset;
    }

    /// What the server takes for the time: it signs answers' `Date` with it and judges signatures by it.
    pub fn server_time(&self) -> OffsetDateTime {
        let now = OffsetDateTime::from(self.wall());
        now.checked_add(self.state().server_offset).unwrap_or(now)
    }

    /// The date that the emulator would give to something that happens now.
    pub(crate) fn wall(&self) -> SystemTime {
        self.clock.now().wall
    }

    pub(crate) fn progress(&self) -> Progress {
        // The clock is the caller's code: it is asked before the lock is taken.
        let wall = self.wall();
        let state = self.state();
        state.stretches.last().map_or(Progress(Duration::ZERO), |stretch| stretch.progress_at(wall))
    }

    /// When the progress reached, or will reach, `target`; `None` if it never does at the present speed.
    pub(crate) fn date_of(&self, target: Progress) -> Option<SystemTime> {
        let state = self.state();
        let ends = state.stretches.iter().skip(1).map(|next| Some(next.wall)).chain([None]);
        for (stretch, end) in state.stretches.iter().zip(ends) {
            if target <= stretch.progress {
                return Some(stretch.wall);
            }
            if let Some(date) = stretch.date_of(target)
                && end.is_none_or(|end| date <= end)
            {
                return Some(date);
            }
        }
        None
    }

    fn begin_stretch(&self, change: impl FnOnce(&mut Stretch)) {
        let wall = self.wall();
        let mut state = self.state();
        let Some(last) = state.stretches.last().copied() else { return };
        let mut next = Stretch { wall, progress: last.progress_at(wall), speed: last.speed };
        change(&mut next);
        state.stretches.push(next);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    /// A wall clock that stands at a date of 2023 until it is moved.
    pub(crate) fn standing() -> (EmulatedClock, impl Fn(Duration)) {
        let millis = Arc::new(AtomicU64::new(1_700_000_000_000));
        let read = Arc::clone(&millis);
        let wall = move || SystemTime::UNIX_EPOCH + Duration::from_millis(read.load(Ordering::SeqCst));
        let step = move |by: Duration| {
            millis.fetch_add(u64::try_from(by.as_millis()).unwrap(), Ordering::SeqCst);
        };
        (EmulatedClock::new(Clock::with_wall(wall)), step)
    }

    const HOUR: Duration = Duration::from_hours(1);

    #[test]
    fn progress_runs_at_the_speed_that_was_set() {
        let (clock, step) = standing();
        clock.set_speed(3600.0);
        step(Duration::from_secs(2));
        assert_eq!(clock.progress(), Progress(2 * HOUR));
        clock.set_speed(f64::NAN);
        step(HOUR);
        assert_eq!(clock.progress(), Progress(2 * HOUR));
    }

    #[test]
    fn what_a_leap_completes_is_dated_at_the_leap_and_stays_so() {
        let (clock, step) = standing();
        step(HOUR);
        let leap = clock.wall();
        clock.advance(3 * HOUR);
        step(HOUR);
        clock.set_speed(7.0);
        assert_eq!(clock.date_of(Progress(2 * HOUR)), Some(leap));
        assert_eq!(clock.date_of(Progress(4 * HOUR)), Some(leap));
        assert_eq!(clock.date_of(Progress(HOUR / 2)), Some(leap - HOUR / 2));
    }

    #[test]
    fn the_date_of_what_is_to_come_follows_the_speed() {
        let (clock, step) = standing();
        clock.set_speed(60.0);
        let start = clock.wall();
        step(Duration::from_secs(1));
        assert_eq!(clock.date_of(Progress(HOUR)), Some(start + Duration::from_mins(1)));
        clock.set_speed(0.0);
        assert_eq!(clock.date_of(Progress(HOUR)), None);
    }

    #[test]
    fn the_servers_clock_is_off_by_its_offset_and_progress_is_not() {
        let (clock, _) = standing();
        let before = clock.server_time();
        clock.set_server_offset(time::Duration::minutes(-10));
        assert_eq!(clock.server_time(), before - time::Duration::minutes(10));
        assert_eq!(clock.progress(), Progress(Duration::ZERO));
    }
}
