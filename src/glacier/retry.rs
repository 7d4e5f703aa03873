//! Whether a failed attempt is followed by another, and when.
//!
//! [`decide`] is a pure function of the failure, what the fetch has done so far, the tokens, the time left, and a random
//! number. Two kinds of further attempt are told apart:
//! - *Repeating* the same question, because the answer may differ next time. It waits (full jitter, doubling), counts
//!   as an attempt, and costs tokens of a bucket that all fetches share: while Glacier is down for everybody, retries end
//!   soon and each fetch is one request.
//! - *Correcting* what was wrong with the first: a connection that had been closed, credentials, the clock. Each is done
//!   once per fetch at most, at once, and says nothing about Glacier's health, so it costs nothing.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use crate::glacier::{
    failure::{Cause, Failure},
    skew::Offset,
};

/// One more than once, for the middle of a deployment on the other side. More would wait longer than callers do.
pub const DEFAULT_MAX_ATTEMPTS: u32 = 3;
/// Trouble on one host is over as soon as another host is asked; 50 ms is about what an answer takes.
pub const DEFAULT_TRANSIENT_BASE: Duration = Duration::from_millis(50);
/// The account's limit counts seconds; asking again within the same one is refused again.
pub const DEFAULT_THROTTLING_BASE: Duration = Duration::from_secs(1);
/// No wait is longer. The budget of a fetch ends sooner by default; this is for those who give it minutes.
pub const DEFAULT_MAX_BACKOFF: Duration = Duration::from_secs(20);
/// As in AWS's SDKs: 35 retries of a sudden outage, then none until something succeeds.
pub const DEFAULT_TOKENS: u32 = 500;

/// Tokens for a retry after anything but throttling. As in AWS's SDKs.
const TRANSIENT_COST: u32 = 14;
/// Tokens for a retry after throttling: it waits longer, so it needs less of a brake. As in AWS's SDKs.
const THROTTLING_COST: u32 = 5;
/// Tokens for a fetch that succeeds at its first attempt.
const FIRST_TRY_REWARD: u32 = 1;
/// How much longer than our own backoff Glacier may make us wait. As in AWS's SDKs.
const RETRY_AFTER_SLACK: Duration = Duration::from_secs(5);
/// An attempt with less time than this would most likely end without an answer, yet Glacier would have worked on it: a
/// new connection inside a region and an answer take about half of it.
const MINIMAL_ATTEMPT: Duration = Duration::from_millis(100);

/// How failed attempts are repeated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetrySettings {
    /// Most attempts of one fetch, the first included; 1 is no retry. [`DEFAULT_MAX_ATTEMPTS`]. What corrects an attempt
    /// (a connection that had been closed, refreshed credentials, a corrected clock) is not counted.
    pub max_attempts: u32,
    /// The wait before the second attempt is a random part of this, doubling with each further one.
    /// [`DEFAULT_TRANSIENT_BASE`].
    pub transient_base: Duration,
    /// The same after throttling. [`DEFAULT_THROTTLING_BASE`].
    pub throttling_base: Duration,
    /// The longest wait of our own choice. [`DEFAULT_MAX_BACKOFF`].
    pub max_backoff: Duration,
    /// How many tokens the bucket holds, and begins with; a retry costs 14, after throttling 5. [`DEFAULT_TOKENS`].
    pub tokens: u32,
}

impl Default for RetrySettings {
    fn default() -> Self {
        Self {
            max_attempts: DEFAULT_MAX_ATTEMPTS,
            transient_base: DEFAULT_TRANSIENT_BASE,
            throttling_base: DEFAULT_THROTTLING_BASE,
            max_backoff: DEFAULT_MAX_BACKOFF,
            tokens: DEFAULT_TOKENS,
        }
    }
}

/// What a fetch has done so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(clippy::struct_excessive_bools, reason = "four things that happen once each, in any order")]
pub(super) struct Progress {
    /// Requests, the one that has just failed included.
    pub(super) requests: u32,
    /// Whether a connection that had been closed was replaced.
    pub(super) resent: bool,
    /// Whether garbage has been answered with another attempt.
    pub(super) garbage_repeated: bool,
    /// Whether credentials were refreshed.
    pub(super) refreshed: bool,
    /// Whether the clock was corrected.
    pub(super) clock_corrected: bool,
    /// What the last repetition cost, if there was one.
    pub(super) paid: Option<u32>,
}

/// What follows a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing: this failure is the fetch's.
    GiveUp,
    /// The same again after `wait`, if the bucket gives `cost` tokens.
    Repeat {
        /// How long.
        wait: Duration,
        /// How many.
        cost: u32,
    },
    /// The same again at once on another connection.
    Resend,
    /// The same again with fresh credentials, if there are others.
    Refresh,
    /// The same again, dated by Glacier's clock.
    CorrectClock(Offset),
}

impl Verdict {
    /// The tokens that it takes.
    pub(super) fn cost(self) -> u32 {
        match self {
            Self::Repeat { cost, .. } => cost,
            Self::GiveUp | Self::Resend | Self::Refresh | Self::CorrectClock(_) => 0,
        }
    }

    /// In snake case, for logs.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::GiveUp => "give_up",
            Self::Repeat { .. } => "repeat",
            Self::Resend => "resend",
            Self::Refresh => "refresh",
            Self::CorrectClock(_) => "correct_clock",
        }
    }

    /// How long it waits first, if it does.
    pub(super) fn wait(self) -> Option<Duration> {
        match self {
            Self::Repeat { wait, .. } => Some(wait),
            Self::GiveUp | Self::Resend | Self::Refresh | Self::CorrectClock(_) => None,
        }
    }
}

/// What follows `failure`. `signed_with` is the clock offset that the failed request was signed with, `tokens` what is
/// in the bucket, `left` the time until the fetch must end, `random` at least 0 and below 1.
pub(super) fn decide(
    settings: &RetrySettings,
    failure: &Failure,
    progress: &Progress,
    signed_with: Offset,
    tokens: u32,
    left: Duration,
    random: f64,
) -> Verdict {
    let repeat = |base: Duration, cost: u32| {
        let attempts = progress.attempts();
        let wait = asked_to_wait(failure.error.retry_after, backoff(settings, base, attempts, random));
        if attempts >= settings.max_attempts || tokens < cost || !fits(wait, left) {
            return Verdict::GiveUp;
        }
        Verdict::Repeat { wait, cost }
    };
    let at_once = |verdict: Verdict| if fits(Duration::ZERO, left) { verdict } else { Verdict::GiveUp };
    let skewed = failure.offset.filter(|measured| signed_with.disagrees_with(*measured));
    match (failure.cause, skewed) {
        (Cause::ClosedWhileIdle, _) if !progress.resent => at_once(Verdict::Resend),
        (Cause::Garbage, _) if progress.garbage_repeated => Verdict::GiveUp,
        (Cause::Transient | Cause::ClosedWhileIdle | Cause::Garbage, _) => {
            repeat(settings.transient_base, TRANSIENT_COST)
        }
        (Cause::Throttled, _) => repeat(settings.throttling_base, THROTTLING_COST),
        // A wrong date spoils every signature, so that comes before the credentials are blamed.
        (Cause::Skewed | Cause::Credentials, Some(measured)) if !progress.clock_corrected => {
            at_once(Verdict::CorrectClock(measured))
        }
        (Cause::Credentials, _) if !progress.refreshed => at_once(Verdict::Refresh),
        // With a clock that agrees, or agreed after a correction, the date is not the reason.
        (Cause::Skewed | Cause::Credentials | Cause::Permanent, _) => Verdict::GiveUp,
    }
}

impl Progress {
    /// The requests that were not mere corrections of the one before.
    fn attempts(&self) -> u32 {
        let corrections = [self.resent, self.refreshed, self.clock_corrected].map(u32::from).iter().sum();
        self.requests.saturating_sub(corrections)
    }

    /// Notes that `verdict` on a failure of this `cause` was followed.
    pub(super) fn follow(&mut self, verdict: Verdict, cause: Cause) {
        match verdict {
            Verdict::GiveUp => {}
            Verdict::Repeat { cost, .. } => {
                self.paid = Some(cost);
                self.garbage_repeated |= cause == Cause::Garbage;
            }
            Verdict::Resend => self.resent = true,
            Verdict::Refresh => self.refreshed = true,
            Verdict::CorrectClock(_) => self.clock_corrected = true,
        }
    }
}

/// Full jitter: anything up to `base`, doubled with each attempt after the first, and never above the cap.
fn backoff(settings: &RetrySettings, base: Duration, attempts: u32, random: f64) -> Duration {
    let doubled = base.saturating_mul(2_u32.saturating_pow(attempts.saturating_sub(1)));
    doubled.min(settings.max_backoff).mul_f64(random.clamp(0.0, 1.0))
}

/// Glacier's wish counts, but neither to come sooner than we would nor to wait for ever.
fn asked_to_wait(wish: Option<Duration>, ours: Duration) -> Duration {
    wish.map_or(ours, |wish| wish.clamp(ours, ours + RETRY_AFTER_SLACK))
}

fn fits(wait: Duration, left: Duration) -> bool {
    wait.saturating_add(MINIMAL_ATTEMPT) <= left
}

/// The tokens that all fetches share.
#[derive(Debug)]
pub(super) struct Bucket {
    tokens: AtomicU32,
    capacity: u32,
}

impl Bucket {
    /// A full one.
    pub(super) fn new(capacity: u32) -> Self {
        Self { tokens: AtomicU32::new(capacity), capacity }
    }

    /// How many there are at the moment.
    pub(super) fn tokens(&self) -> u32 {
        self.tokens.load(Ordering::Relaxed)
    }

    /// Takes all of `cost`, or nothing and says `false`.
    pub(super) fn take(&self, cost: u32) -> bool {
        let less = |tokens: u32| tokens.checked_sub(cost);
        self.tokens.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
    }

    /// A fetch has succeeded: a repetition gets back what it `paid`, a first attempt is rewarded. One that succeeded
    /// after a correction is neither.
    pub(super) fn reward(&self, progress: &Progress) {
        let tokens = match progress.paid {
            Some(paid) => paid,
            None if progress.requests == 1 => FIRST_TRY_REWARD,
            None => 0,
        };
        self.give(tokens);
    }

    /// Puts so many tokens in, up to the capacity.
    pub(super) fn give(&self, tokens: u32) {
        let more = |present: u32| Some(present.saturating_add(tokens).min(self.capacity));
        // The closure never declines.
        let _ = self.tokens.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
    }
}

#[cfg(test)]
mod tests;
