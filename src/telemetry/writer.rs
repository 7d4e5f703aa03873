//! Writing without waiting: lines are put into memory, and a thread of its own writes them.
//!
//! Whoever logs may be serving a call, and stderr may be a pipe that nobody reads. So there is a bound: what comes while
//! that much is waiting is dropped and counted.

use std::{
    io::{self, Write},
    mem,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use crate::metrics::LogMetrics;

/// Bytes that may wait, besides as many that are being written: some thousand lines, for a reader that pauses.
const MOST_WAITING: usize = 1024 * 1024;

/// How long the first of some lines waits for others, so that a thread is not woken, and a system call made, for each.
const REST: Duration = Duration::from_millis(2);

/// Takes lines. Cheap to clone; clones share everything.
#[derive(Debug, Clone)]
pub(super) struct Lines {
    shared: Arc<Shared>,
    metrics: LogMetrics,
}

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    /// Something waits.
    filled: Condvar,
    /// What was being written has been.
    written: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    text: Vec<u8>,
    lines: u64,
    being_written: bool,
}

impl Lines {
    /// Starts the thread that writes to `sink`.
    pub(super) fn written_to(sink: impl Write + Send + 'static, metrics: LogMetrics) -> io::Result<Self> {
        let lines = Self { shared: Arc::default(), metrics };
        let writer = lines.clone();
        thread::Builder::new().name("log".to_owned()).spawn(move || writer.write_for_ever(sink))?;
        Ok(lines)
    }

    /// Waits until all that was logged so far is written, but not longer than `limit`. Says whether it was.
    pub(super) fn flush(&self, limit: Duration) -> bool {
        let is_left = |waiting: &mut Waiting| waiting.being_written || !waiting.text.is_empty();
        let waited = self.shared.written.wait_timeout_while(self.lock(), limit, is_left);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    fn put(&self, line: &[u8]) {
        let mut waiting = self.lock();
        if waiting.text.len() + line.len() > MOST_WAITING {
            drop(waiting);
            self.metrics.dropped(1);
            return;
        }
        let is_first = waiting.text.is_empty();
        waiting.text.extend_from_slice(line);
        waiting.lines += 1;
        drop(waiting);
        if is_first {
            self.shared.filled.notify_one();
        }
    }

    fn write_for_ever(&self, mut sink: impl Write) {
        let mut text = Vec::new();
        loop {
            let is_empty = |waiting: &mut Waiting| waiting.text.is_empty();
            drop(self.shared.filled.wait_while(self.lock(), is_empty));
            thread::sleep(REST);
            let mut waiting = self.lock();
            mem::swap(&mut waiting.text, &mut text);
            let lines = mem::take(&mut waiting.lines);
            waiting.being_written = true;
            drop(waiting);

            // Nowhere to complain: this is the log. Some of the lines may have got through.
            if sink.write_all(&text).and_then(|()| sink.flush()).is_err() {
                self.metrics.dropped(lines);
            }
            text.clear();
            self.lock().being_written = false;
            self.shared.written.notify_all();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Whole between any two statements, so a panic elsewhere does not spoil it.
        self.shared.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One call is one line: tracing-subscriber formats an event as a whole and then writes it.
impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.put(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    /// Tells of each write before it takes it, and takes it when it may.
    struct Gated {
        tell: mpsc::Sender<Vec<u8>>,
        may: mpsc::Receiver<io::Result<()>>,
    }

    impl Write for Gated {
        fn write(&mut self, text: &[u8]) -> io::Result<usize> {
            let _ = self.tell.send(text.to_vec());
            self.may.recv().unwrap_or(Ok(())).map(|()| text.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn gated() -> (Lines, LogMetrics, mpsc::Receiver<Vec<u8>>, mpsc::Sender<io::Result<()>>) {
        let ((tell, told), (open, may)) = (mpsc::channel(), mpsc::channel());
        let metrics = LogMetrics::default();
        (Lines::written_to(Gated { tell, may }, metrics.clone()).unwrap(), metrics, told, open)
    }

    #[test]
    fn whoever_logs_waits_for_nobody_and_what_does_not_fit_is_counted() {
        let (lines, metrics, told, open) = gated();
        let line = [b'x'; 1024];
        lines.put(&line);
        assert_eq!(told.recv_timeout(PATIENCE).unwrap(), line, "this is being written from now on");
        for _ in 0..MOST_WAITING / line.len() {
            lines.put(&line);
        }
        assert_eq!(metrics.dropped_so_far(), 0);
        for _ in 0..5 {
            lines.put(&line);
        }
        assert_eq!(metrics.dropped_so_far(), 5);

        assert!(!lines.flush(Duration::from_millis(1)), "nothing is written as yet");
        drop(open);
        assert!(lines.flush(PATIENCE));
        assert_eq!(told.try_iter().map(|text| text.len()).sum::<usize>(), MOST_WAITING);
    }

    #[test]
    fn what_cannot_be_written_is_counted_and_the_next_is_tried() {
        let (lines, metrics, told, open) = gated();
        open.send(Err(io::ErrorKind::BrokenPipe.into())).unwrap();
        lines.put(b"lost\n");
        assert!(lines.flush(PATIENCE));
        assert_eq!(metrics.dropped_so_far(), 1);
        drop(open);
        lines.put(b"kept\n");
        assert!(lines.flush(PATIENCE));
        assert_eq!(told.try_iter().last().unwrap(), b"kept\n");
        assert_eq!(metrics.dropped_so_far(), 1);
    }
}
