//! The script of faults: which requests meet which fault.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{
    fault::Fault,
    gate::{Gate, Hold},
};

/// The script of faults. Clones share it.
///
/// A request meets the first fault in the queue that is meant for it; if there is none, the standing rule for its job;
/// then the general standing rule; and then nothing.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    script: Arc<Mutex<Script>>,
}

#[derive(Debug, Default)]
struct Script {
    queue: VecDeque<Queued>,
    standing: Vec<(Option<String>, Fault)>,
    /// Those that are open are thrown out when the next one comes.
    holds: Vec<Gate>,
}

#[derive(Debug)]
struct Queued {
    job_id: Option<String>,
    remaining: usize,
    fault: Fault,
}

impl Faults {
    /// The next request meets this fault (after those already queued).
    pub fn next(&self, fault: Fault) {
        self.times(1, fault);
    }

    /// The next `n` requests meet this fault (after those already queued).
    pub fn times(&self, n: usize, fault: Fault) {
        self.script().enqueue(None, n, fault);
    }

    /// Every request meets this fault unless the queue has something for it. Replaces an earlier standing fault.
    pub fn always(&self, fault: Fault) {
        self.script().stand(None, fault);
    }

    /// The same three for the requests for one job.
    pub fn for_job(&self, job_id: &str) -> JobFaults<'_> {
        JobFaults { faults: self, job_id: job_id.to_owned() }
    }

    /// Forgets queue and standing faults. Answers on their way, and holds, are not touched.
    pub fn clear(&self) {
        let mut script = self.script();
        script.queue.clear();
        script.standing.clear();
    }

    /// How many queued faults no request has met yet.
    pub fn queued(&self) -> usize {
        self.script().queue.iter().map(|queued| queued.remaining).sum()
    }

    /// Holds all answers back, those to requests that are already waiting too, until the guard is dropped. Each answer
    /// was made when its request arrived.
    pub fn hold(&self) -> Hold {
        let gate = Gate::shut();
        let mut script = self.script();
        script.holds.retain(Gate::is_shut);
        script.holds.push(gate.clone());
        Hold { gate }
    }

    /// Waits until nobody holds answers back.
    pub(crate) async fn released(&self) {
        loop {
            let held = self.script().holds.iter().find(|gate| gate.is_shut()).cloned();
            let Some(gate) = held else { return };
            gate.opened().await;
        }
    }

    /// What a request meets.
    pub(crate) fn take(&self, job_id: Option<&str>) -> Fault {
        self.script().take(job_id).unwrap_or_else(Fault::pass)
    }

    fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The faults of one job.
#[derive(Debug)]
pub struct JobFaults<'a> {
    faults: &'a Faults,
    job_id: String,
}

impl JobFaults<'_> {
    /// As [`Faults::next`].
    pub fn next(&self, fault: Fault) {
        self.times(1, fault);
    }

    /// As [`Faults::times`].
    pub fn times(&self, n: usize, fault: Fault) {
        self.faults.script().enqueue(Some(&self.job_id), n, fault);
    }

    /// As [`Faults::always`].
    pub fn always(&self, fault: Fault) {
        self.faults.script().stand(Some(&self.job_id), fault);
    }
}

impl Script {
    fn enqueue(&mut self, job_id: Option<&str>, n: usize, fault: Fault) {
        if n > 0 {
            self.queue.push_back(Queued { job_id: job_id.map(str::to_owned), remaining: n, fault });
        }
    }

    fn stand(&mut self, job_id: Option<&str>, fault: Fault) {
        self.standing.retain(|(meant, _)| meant.as_deref() != job_id);
        self.standing.push((job_id.map(str::to_owned), fault));
    }

    fn take(&mut self, job_id: Option<&str>) -> Option<Fault> {
        let meant_for = |meant: &Option<String>| meant.is_none() || meant.as_deref() == job_id;
        if let Some(at) = self.queue.iter().position(|queued| meant_for(&queued.job_id)) {
            let queued = &mut self.queue[at];
            queued.remaining -= 1;
            let fault = queued.fault.clone();
            if queued.remaining == 0 {
                self.queue.remove(at);
            }
            return Some(fault);
        }
        let own = self.standing.iter().find(|(meant, _)| meant.is_some() && meant.as_deref() == job_id);
        own.or_else(|| self.standing.iter().find(|(meant, _)| meant.is_none())).map(|(_, fault)| fault.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::emulator::fault::Answer;

    fn met(faults: &Faults, job_id: &str) -> u16 {
        match faults.take(Some(job_id)).answer {
            Answer::Instead(reply) => reply.status.as_u16(),
            Answer::Ordinary | Answer::Never | Answer::Close { .. } => 0,
        }
    }

    #[test]
    fn the_queue_comes_first_then_the_jobs_rule_then_the_general_one() {
        let faults = Faults::default();
        faults.always(Fault::error(500, "A"));
        faults.always(Fault::error(501, "A"));
        faults.for_job("x").always(Fault::error(502, "B"));
        faults.times(2, Fault::error(503, "C"));
        faults.for_job("x").next(Fault::error(504, "D"));
        assert_eq!(faults.queued(), 3);
        assert_eq!([met(&faults, "y"), met(&faults, "x"), met(&faults, "y")], [503, 503, 501]);
        assert_eq!([met(&faults, "x"), met(&faults, "x"), met(&faults, "x")], [504, 502, 502]);
        faults.next(Fault::pass());
        assert_eq!([met(&faults, "x"), met(&faults, "x")], [0, 502]);
        faults.clear();
        assert_eq!((met(&faults, "x"), faults.queued()), (0, 0));
    }

    #[test]
    fn illegal_statuses_and_headers_do_no_harm() {
        let fault = Fault::respond(7, &[("bad name", "x"), ("good", "bad\nvalue"), ("fine", "y")], "");
        let Answer::Instead(reply) = fault.answer else { panic!("not an answer") };
        assert_eq!((reply.status.as_u16(), reply.headers.len()), (500, 1));
    }

    #[tokio::test]
    async fn all_holds_must_be_released() {
        let faults = Faults::default();
        let (first, second) = (faults.hold(), faults.hold());
        let waiting = faults.released();
        tokio::pin!(waiting);
        assert!(futures_util::poll!(&mut waiting).is_pending());
        first.release();
        assert!(futures_util::poll!(&mut waiting).is_pending());
        drop(second);
        assert!(futures_util::poll!(&mut waiting).is_ready());
    }
}
