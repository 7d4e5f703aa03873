//! The load generator: raw frames over non-blocking sockets in one thread, so that it costs less than any server that it
//! asks.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use mio::{Events, Poll, Token};
use side_by_side::Outcome;

use crate::{
    connection::{Connection, Shared},
    expected::Expected,
    process,
    question::Question,
};

/// A server that answers nothing for so long ends the run.
const PATIENCE: Duration = Duration::from_secs(30);

/// Which jobs to ask for.
#[derive(Debug, Clone)]
pub(crate) enum Keys {
    /// Always the same.
    One(u32),
    /// Any of the first so many.
    Random(u32),
    /// One after the other.
    InTurn(std::ops::Range<u32>),
}

impl Keys {
    fn next(&mut self) -> Option<u32> {
        match self {
            Self::One(job) => Some(*job),
            Self::Random(count) => Some(fastrand::u32(..*count)),
            Self::InTurn(range) => range.next(),
        }
    }
}

/// When to ask no more.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Until {
    Passed(Duration),
    Asked(u64),
}

/// How a connection goes on after an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pace {
    /// An answer is followed by the next question.
    Closed,
    /// The next questions go out together when all are answered: the same batches each time.
    Waves,
}

/// What a load brought.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tally {
    pub(crate) calls: u64,
    pub(crate) elapsed: Duration,
    /// CPU of the generator's thread.
    pub(crate) own_cpu: Duration,
}

/// Connections to one server.
pub(crate) struct Load {
    poll: Poll,
    events: Events,
    connections: Vec<Connection>,
    shared: Shared,
}

impl Load {
    pub(crate) fn connect(address: SocketAddr, count: usize, question: Question, expected: Expected) -> Outcome<Self> {
        let poll = Poll::new()?;
        let open = |index| Connection::open(address, count, poll.registry(), Token(index));
        let connections = (0..count).map(open).collect::<Outcome<_>>()?;
        let shared = Shared { question, expected, scratch: Vec::new(), answered: 0, latencies: None };
        Ok(Self { poll, events: Events::with_capacity(1024), connections, shared })
    }

    /// The right answers, with all that was learnt of them.
    pub(crate) fn into_expected(self) -> Expected {
        self.shared.expected
    }

    /// Keeps every connection at `streams` questions, and waits for the last answer.
    pub(crate) fn run(&mut self, streams: usize, keys: Keys, until: Until, pace: Pace) -> Outcome<Tally> {
        let (start, own, before) = (Instant::now(), process::own_cpu()?, self.shared.answered);
        let mut source = Source { keys, until, start, asked: 0 };
        for index in 0..self.connections.len() {
            self.fill(index, streams, &mut source, start)?;
        }
        let mut last_answer = start;
        while self.in_flight() > 0 {
            self.poll.poll(&mut self.events, Some(PATIENCE))?;
            let now = Instant::now();
            let so_far = self.shared.answered;
            for index in self.touched() {
                let connection = &mut self.connections[index];
                connection.receive(&mut self.shared)?;
                connection.renew(self.poll.registry(), Token(index))?;
                if pace == Pace::Closed || connection.in_flight == 0 {
                    self.fill(index, streams, &mut source, now)?;
                } else {
                    connection.flush()?;
                }
            }
            if self.shared.answered > so_far {
                last_answer = now;
            } else if now.duration_since(last_answer) > PATIENCE {
                return Err("the server stopped answering".into());
            }
        }
        let calls = self.shared.answered - before;
        Ok(Tally { calls, elapsed: start.elapsed(), own_cpu: process::own_cpu()?.saturating_sub(own) })
    }

    /// The same, noting each answer's latency.
    pub(crate) fn run_timed(&mut self, streams: usize, keys: Keys, until: Until) -> Outcome<(Tally, Vec<Duration>)> {
        self.shared.latencies = Some(Vec::new());
        let tally = self.run(streams, keys, until, Pace::Closed)?;
        Ok((tally, self.shared.latencies.take().unwrap_or_default()))
    }

    /// Asks `rate` times a second at even distances, whether answers come or not. Latencies count from the moment at which
    /// a question was due, so that a server that stalls cannot hide it. Also tells how late questions left that nothing
    /// but the generator held up: their 99th percentile.
    pub(crate) fn run_at(
        &mut self,
        rate: f64,
        mut keys: Keys,
        time: Duration,
        streams: usize,
    ) -> Outcome<(Tally, Vec<Duration>, Duration)> {
        self.shared.latencies = Some(Vec::new());
        let (start, own, before) = (Instant::now(), process::own_cpu()?, self.shared.answered);
        let (mut asked, mut lateness) = (0_u32, Vec::new());
        let total = Duration::from_secs_f64(time.as_secs_f64() * rate).as_secs();
        let gap = Duration::from_secs_f64(1.0 / rate);
        let mut held_up = false;
        while u64::from(asked) < total || self.in_flight() > 0 {
            let now = Instant::now();
            while u64::from(asked) < total && start + gap * asked <= now {
                let due = start + gap * asked;
                let index = asked as usize % self.connections.len();
                let connection = &mut self.connections[index];
                if connection.in_flight >= streams || !connection.has_room(self.shared.question.payload()) {
                    held_up = true;
                    break;
                }
                if !held_up {
                    lateness.push(now.saturating_duration_since(due));
                }
                held_up = false;
                connection.ask(&self.shared, keys.next().unwrap_or_default(), due)?;
                asked += 1;
            }
            for connection in &mut self.connections {
                connection.flush()?;
            }
            self.poll.poll(&mut self.events, Some(Duration::ZERO))?;
            for index in self.touched() {
                self.connections[index].receive(&mut self.shared)?;
            }
            if now.duration_since(start) > time + PATIENCE {
                return Err("the server does not keep up".into());
            }
        }
        let calls = self.shared.answered - before;
        let tally = Tally { calls, elapsed: start.elapsed(), own_cpu: process::own_cpu()?.saturating_sub(own) };
        lateness.sort_unstable();
        let late = lateness.get(lateness.len() * 99 / 100).copied().unwrap_or_default();
        Ok((tally, self.shared.latencies.take().unwrap_or_default(), late))
    }

    fn touched(&self) -> Vec<usize> {
        self.events.iter().map(|event| event.token().0).collect()
    }

    fn in_flight(&self) -> usize {
        self.connections.iter().map(|connection| connection.in_flight).sum()
    }

    fn fill(&mut self, index: usize, streams: usize, source: &mut Source, now: Instant) -> Outcome<()> {
        let connection = &mut self.connections[index];
        while connection.in_flight < streams && connection.has_room(self.shared.question.payload()) {
            let Some(key) = source.next(now) else { break };
            connection.ask(&self.shared, key, now)?;
        }
        connection.flush()
    }
}

struct Source {
    keys: Keys,
    until: Until,
    start: Instant,
    asked: u64,
}

impl Source {
    fn next(&mut self, now: Instant) -> Option<u32> {
        let is_over = match self.until {
            Until::Passed(time) => now.duration_since(self.start) >= time,
            Until::Asked(count) => self.asked >= count,
        };
        if is_over {
            return None;
        }
        self.asked += 1;
        self.keys.next()
    }
}
