//! What the emulator was asked.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
};

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use tokio::{sync::watch, time::Instant};

/// How many requests are remembered in full. Older ones are only counted.
const REMEMBERED: usize = 10_000;

/// A request as it arrived.
#[derive(Debug, Clone)]
pub struct SeenRequest {
    /// `GET`, if all is well.
    pub method: Method,
    /// As on the wire.
    pub path: String,
    /// As on the wire, without the `?`.
    pub query: Option<String>,
    /// All of them, the signature too.
    pub headers: HeaderMap,
    /// When its headers had been read.
    pub arrived: Instant,
    /// The job that it asks for, if it is that kind of request.
    pub job_id: Option<String>,
}

/// The same headers in memory of their own. As they arrive they are slices of the connection's read buffer, so keeping
/// them would keep 8 KiB and more for each request.
pub(crate) fn detached(headers: &HeaderMap) -> HeaderMap {
    let copies = headers.iter().filter_map(|(name, value)| {
        let name = HeaderName::from_bytes(name.as_str().as_bytes()).ok()?;
        Some((name, HeaderValue::from_bytes(value.as_bytes()).ok()?))
    });
    let mut detached = HeaderMap::with_capacity(headers.len());
    for (name, value) in copies {
        detached.append(name, value);
    }
    detached
}

/// All requests so far.
#[derive(Debug)]
pub(crate) struct RequestLog {
    state: Mutex<State>,
    /// Changes after each entry, so waiting for requests needs no sleep.
    total: watch::Sender<usize>,
}

#[derive(Debug, Default)]
struct State {
    last: VecDeque<SeenRequest>,
    by_job: HashMap<String, usize>,
}

impl RequestLog {
    pub(crate) fn new() -> Self {
        Self { state: Mutex::default(), total: watch::Sender::new(0) }
    }

    pub(crate) fn record(&self, request: SeenRequest) {
        let mut state = self.state();
        if let Some(job_id) = &request.job_id {
            *state.by_job.entry(job_id.clone()).or_default() += 1;
        }
        if state.last.len() == REMEMBERED {
            state.last.pop_front();
        }
        state.last.push_back(request);
        drop(state);
        self.total.send_modify(|total| *total += 1);
    }

    pub(crate) fn last(&self) -> Vec<SeenRequest> {
        self.state().last.iter().cloned().collect()
    }

    pub(crate) fn total(&self) -> usize {
        *self.total.borrow()
    }

    pub(crate) fn total_for(&self, job_id: &str) -> usize {
        self.state().by_job.get(job_id).copied().unwrap_or_default()
    }

    pub(crate) async fn reached(&self, n: usize) {
        // The sender is ours, so this cannot fail.
        let _ = self.total.subscribe().wait_for(|total| *total >= n).await;
    }

    pub(crate) async fn reached_for(&self, job_id: &str, n: usize) {
        let _ = self.total.subscribe().wait_for(|_| self.total_for(job_id) >= n).await;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(job_id: &str) -> SeenRequest {
        SeenRequest {
            method: Method::GET,
            path: String::new(),
            query: None,
            headers: HeaderMap::new(),
            arrived: Instant::now(),
            job_id: Some(job_id.to_owned()),
        }
    }

    #[test]
    fn old_requests_are_counted_but_not_kept() {
        let log = RequestLog::new();
        log.record(request("first"));
        (0..REMEMBERED).for_each(|_| log.record(request("later")));
        assert_eq!((log.last().len(), log.total(), log.total_for("first")), (REMEMBERED, REMEMBERED + 1, 1));
        assert!(log.last().iter().all(|seen| seen.job_id.as_deref() == Some("later")));
    }

    #[tokio::test]
    async fn waiting_ends_with_the_request_that_was_waited_for() {
        let log = RequestLog::new();
        let waiting = log.reached_for("b", 1);
        tokio::pin!(waiting);
        log.record(request("a"));
        assert!(futures_util::poll!(&mut waiting).is_pending());
        log.record(request("b"));
        waiting.await;
        log.reached(2).await;
    }
}
