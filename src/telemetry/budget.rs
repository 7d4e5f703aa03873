//! How many lines a source may have in the log: some at once, then some a second. Of what is beyond that, one line stands for
//! many.
//!
//! Without it, one caller could cause so many lines, even while the policy denies it, that everybody's are dropped
//! ([`super::writer`]).

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, Hash, RandomState},
    mem,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// Lines that a source may have at once: more than anybody reads of one kind.
const AT_ONCE: u32 = 100;
/// One more in this time: ten a second.
const EVERY: Duration = Duration::from_millis(100);
/// Sources that are told apart; what is beyond them shares one budget. Some hundred kilobytes.
const MOST_SOURCES: usize = 4096;
/// Sources whose budget is whole again are forgotten no more often than this, since that looks at all of them.
const SWEEP: Duration = Duration::from_secs(1);

/// Budgets of any number of sources, in bounded memory.
#[derive(Debug, Default)]
pub struct LineBudget {
    /// Keyed anew in each process, so that nobody can choose a name with another's hash.
    hasher: RandomState,
    sources: Mutex<Sources>,
}

#[derive(Debug, Default)]
struct Sources {
    /// By the hash of a source.
    known: HashMap<u64, Budget>,
    /// Of all that are not known because too many are.
    others: Budget,
    swept_at: Option<Instant>,
}

#[derive(Debug, Default)]
struct Budget {
    /// When it will be whole; `None` for one that nobody has used.
    whole_at: Option<Instant>,
    /// Lines since the last that was logged.
    unlogged: u64,
}

impl LineBudget {
    /// Of how many lines of this source the present one is the only one to be logged; `None` if it is not to be.
    pub fn one_in(&self, source: impl Hash, now: Instant) -> Option<u64> {
        let source = self.hasher.hash_one(source);
        // Whole between any two statements, so a panic elsewhere does not spoil it.
        self.sources.lock().unwrap_or_else(PoisonError::into_inner).budget(source, now).take(now)
    }
}

impl Sources {
    fn budget(&mut self, source: u64, now: Instant) -> &mut Budget {
        if self.known.len() >= MOST_SOURCES && !self.known.contains_key(&source) {
            if self.swept_at.is_none_or(|at| now.saturating_duration_since(at) >= SWEEP) {
                self.swept_at = Some(now);
                self.known.retain(|_, budget| !budget.is_whole(now));
            }
            if self.known.len() >= MOST_SOURCES {
                return &mut self.others;
            }
        }
        self.known.entry(source).or_default()
    }
}

impl Budget {
    fn is_whole(&self, now: Instant) -> bool {
        self.whole_at.is_none_or(|at| at <= now)
    }

    fn take(&mut self, now: Instant) -> Option<u64> {
        let whole_at = self.whole_at.map_or(now, |at| at.max(now)) + EVERY;
        if whole_at.saturating_duration_since(now) > AT_ONCE * EVERY {
            self.unlogged += 1;
            return None;
        }
        self.whole_at = Some(whole_at);
        Some(mem::take(&mut self.unlogged) + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const BURST: usize = AT_ONCE as usize;

    /// How many of `lines` lines in the second after `start` are logged, and for how many they stand.
    fn flood(budget: &LineBudget, source: &str, start: Instant, lines: u32) -> (usize, u64) {
        let logged: Vec<_> = (0..lines).filter_map(|n| budget.one_in(source, start + SECOND * n / lines)).collect();
        (logged.len(), logged.iter().sum())
    }

    /// D21.
    #[test]
    fn a_flood_of_one_source_is_sampled_and_no_other_sources_line_is_lost() {
        let (budget, start) = (LineBudget::default(), Instant::now());
        let mut stood_for = 0;
        for second in 0..10 {
            let (logged, stands_for) = flood(&budget, "loud", start + second * SECOND, 10_000);
            assert!(logged <= if second == 0 { BURST + 10 } else { 10 }, "{logged} in second {second}");
            stood_for += stands_for;
            assert_eq!(flood(&budget, "quiet", start + second * SECOND, 10), (10, 10));
        }
        assert!((99_000..=100_000).contains(&stood_for), "{stood_for}: each line tells of those before it");
    }

    /// D21.
    #[test]
    fn after_a_flood_the_next_line_tells_of_it_and_soon_every_line_is_logged_again() {
        let (budget, start) = (LineBudget::default(), Instant::now());
        for _ in 0..1000 {
            budget.one_in("loud", start);
        }
        assert_eq!(budget.one_in("loud", start + EVERY), Some(901));
        assert_eq!(budget.one_in("loud", start + EVERY), None);
        let later = start + (AT_ONCE + 1) * EVERY;
        assert_eq!(flood(&budget, "loud", later, AT_ONCE), (BURST, 101), "one line tells of the one before it");
        assert_eq!(flood(&budget, "loud", later + (AT_ONCE + 1) * EVERY, AT_ONCE), (BURST, 100));
    }

    #[test]
    fn a_crowd_of_sources_takes_bounded_memory_and_its_places_are_given_back() {
        let (budget, start) = (LineBudget::default(), Instant::now());
        for source in 0..MOST_SOURCES {
            assert_eq!(budget.one_in(source, start), Some(1));
        }
        let beyond = (0..1000).filter_map(|n| budget.one_in(MOST_SOURCES + n, start)).count();
        assert_eq!(beyond, BURST, "they share one budget");
        assert_eq!(budget.one_in(0_usize, start), Some(1), "who is known has its own");
        let size = || budget.sources.lock().unwrap().known.len();
        assert_eq!(size(), MOST_SOURCES);
        // By then all are whole again, and forgotten since there is need.
        assert_eq!(budget.one_in("new", start + SECOND), Some(1));
        assert_eq!(size(), 1);
        assert_eq!(flood(&budget, "new", start + 2 * SECOND, 100), (100, 100), "it is known");
    }
}
