//! What happened: outcomes, times, and violations.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{Mutex, MutexGuard},
    time::Duration,
};

/// Violations that are kept in words; more would only fill the screen.
const SHOWN: usize = 20;

#[derive(Default)]
pub(crate) struct Tally {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    calls: usize,
    cancelled: usize,
    /// Answered more than 50 ms past the caller's deadline. Told, not judged.
    late: usize,
    outcomes: BTreeMap<String, usize>,
    cache: BTreeMap<String, usize>,
    /// Calls by the logarithm of their time in microseconds, in eighths.
    times: BTreeMap<i32, usize>,
    jobs_added: usize,
    jobs_retired: usize,
    requests: usize,
    bound: usize,
    violations: Vec<String>,
    more_violations: usize,
}

impl Tally {
    /// A call that was answered: what it heard, and how the cache came by it.
    pub(crate) fn answered(&self, outcome: &str, cache: Option<&str>, took: Duration, late: bool) {
        let mut state = self.lock();
        state.calls += 1;
        state.late += usize::from(late);
        *state.outcomes.entry(outcome.to_owned()).or_default() += 1;
        if let Some(cache) = cache {
            *state.cache.entry(kind_of(cache)).or_default() += 1;
        }
        #[expect(clippy::cast_possible_truncation, reason = "a logarithm is small")]
        let bucket = (took.as_secs_f64().max(1e-6) * 1e6).log2().mul_add(8.0, 0.0) as i32;
        *state.times.entry(bucket).or_default() += 1;
    }

    pub(crate) fn cancelled(&self) {
        self.lock().cancelled += 1;
    }

    pub(crate) fn job_added(&self) {
        self.lock().jobs_added += 1;
    }

    pub(crate) fn jobs_added(&self) -> usize {
        self.lock().jobs_added
    }

    /// A job that is over cost this many upstream requests, and could have cost so many.
    pub(crate) fn job_retired(&self, requests: usize, bound: usize) {
        let mut state = self.lock();
        state.jobs_retired += 1;
        state.requests += requests;
        state.bound += bound;
    }

    pub(crate) fn violation(&self, what: String) {
        let mut state = self.lock();
        if state.violations.len() < SHOWN { state.violations.push(what) } else { state.more_violations += 1 }
    }

    pub(crate) fn violations(&self) -> Vec<String> {
        let state = self.lock();
        let more = (state.more_violations > 0).then(|| format!("and {} more", state.more_violations));
        state.violations.iter().cloned().chain(more).collect()
    }

    /// A soak that met only errors, or only hits, would prove little.
    pub(crate) fn check_that_all_was_seen(&self) {
        let missing: Vec<_> = {
            let state = self.lock();
            let seen = |counts: &BTreeMap<String, usize>, what: &str| counts.keys().any(|key| key == what);
            let outcomes = ["OK InProgress", "OK Final"].iter().filter(|what| !seen(&state.outcomes, what));
            let cache = ["hit", "fwd=miss"].iter().filter(|what| !seen(&state.cache, what));
            outcomes.chain(cache).map(|what| format!("never seen: {what}")).collect()
        };
        for what in missing {
            self.violation(what);
        }
    }

    pub(crate) fn summary(&self) -> String {
        let state = self.lock();
        let mut text = String::new();
        let mut section = |title: &str, counts: &BTreeMap<String, usize>| {
            let _ = writeln!(text, "{title}:");
            for (what, count) in counts {
                let _ = writeln!(text, "  {count:>9}  {what}");
            }
        };
        section("outcomes", &state.outcomes);
        section("cache-status", &state.cache);
        let State { calls, cancelled, late, jobs_added, jobs_retired, requests, bound, .. } = &*state;
        let _ = writeln!(text, "calls: {calls} answered, {cancelled} cancelled, {late} later than deadline + 50 ms");
        let _ = writeln!(text, "jobs: {jobs_added} made, {jobs_retired} seen to their end");
        let _ = writeln!(text, "upstream requests for jobs: {requests}, bound {bound}");
        let _ = write!(text, "times: p50 {:?}, p99 {:?}", state.quantile(50), state.quantile(99));
        text
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

impl State {
    fn quantile(&self, percent: usize) -> Duration {
        let rank = self.calls * percent / 100;
        let mut passed = 0;
        let reached = self.times.iter().find(|(_, count)| {
            passed += **count;
            passed > rank
        });
        let micros = reached.map_or(0.0, |(bucket, _)| (f64::from(*bucket) / 8.0).exp2());
        Duration::from_secs_f64((micros * 1e-6 * 1e5).round() / 1e5)
    }
}

/// `glacier-gateway; hit; ttl=-4; detail=stale-if-error` without its number.
fn kind_of(cache_status: &str) -> String {
    let parameters = cache_status.split("; ").skip(1).filter(|parameter| !parameter.starts_with("ttl="));
    let kind = parameters.collect::<Vec<_>>().join("; ");
    if kind.starts_with("fwd=miss") { kind.replace("; stored", "") } else { kind }
}
