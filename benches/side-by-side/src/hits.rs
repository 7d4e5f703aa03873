//! The main comparison: short bursts of hits at every server in turn, in another order in each round, so that what
//! disturbs the machine disturbs all alike.

use std::{collections::BTreeMap, time::Duration};

use side_by_side::Outcome;

use crate::{
    expected::Expected,
    load::{Keys, Load, Pace, Tally, Until},
    peers::{Peer, Place},
    process::{Cpu, Server},
    statistics::{Spread, spread},
};

/// Connections, and streams on each.
pub(crate) const LOADS: [(usize, usize); 2] = [(8, 32), (8, 1)];
const WARM_UP: Duration = Duration::from_millis(100);

/// A server and what it must answer.
pub(crate) struct Runner {
    pub(crate) peer: Peer,
    pub(crate) server: Server,
    pub(crate) expected: Expected,
}

/// One burst.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Burst {
    pub(crate) tally: Tally,
    pub(crate) server_cpu: Duration,
}

impl Burst {
    /// Microseconds.
    pub(crate) fn cpu_per_call(&self) -> f64 {
        self.server_cpu.as_secs_f64() * 1e6 / self.tally.calls as f64
    }

    pub(crate) fn calls_per_second(&self) -> f64 {
        self.tally.calls as f64 / self.tally.elapsed.as_secs_f64()
    }

    fn busy(&self, cpu: Duration) -> f64 {
        cpu.as_secs_f64() / self.tally.elapsed.as_secs_f64()
    }

    /// Whether the generator was what held calls up.
    fn generator_limits(&self) -> bool {
        self.busy(self.tally.own_cpu) >= 0.9 && self.busy(self.server_cpu) < 0.9
    }
}

/// All bursts of one server under one load, by round.
pub(crate) type Bursts = BTreeMap<(&'static str, usize), Vec<Burst>>;

/// One burst: new connections, a warm-up, then what counts.
pub(crate) fn burst(runner: &mut Runner, load: (usize, usize), keys: &Keys, time: Duration) -> Outcome<Burst> {
    let Runner { peer, server, expected } = runner;
    let mut generator = Load::connect(server.address, load.0, peer.question(), expected.clone())?;
    generator.run(load.1, keys.clone(), Until::Passed(WARM_UP), Pace::Closed)?;
    let before = Cpu::of(server.id())?;
    let tally = generator.run(load.1, keys.clone(), Until::Passed(time), Pace::Closed)?;
    let server_cpu = Cpu::of(server.id())?.since(&before);
    *expected = generator.into_expected();
    Ok(Burst { tally, server_cpu })
}

/// `rounds` rounds of bursts of `time`.
pub(crate) fn rounds(runners: &mut [Runner], rounds: usize, time: Duration) -> Outcome<Bursts> {
    let mut bursts = Bursts::new();
    for round in 0..rounds {
        let mut order: Vec<_> = (0..runners.len()).flat_map(|server| [0, 1].map(|load| (server, load))).collect();
        fastrand::shuffle(&mut order);
        for (index, load) in order {
            let runner = &mut runners[index];
            let name = runner.peer.name();
            let burst = burst(runner, LOADS[load], &Keys::One(0), time).map_err(|e| format!("{name}: {e}"))?;
            bursts.entry((name, load)).or_default().push(burst);
        }
        eprintln!("round {} of {rounds}", round + 1);
    }
    Ok(bursts)
}

/// Starts everybody who is on this machine; the others are named on stderr.
pub(crate) fn start(
    peers: &[Peer],
    place: &Place,
    upstream: &crate::upstream::Upstream,
    more: &[String],
) -> Outcome<Vec<Runner>> {
    let mut runners = Vec::new();
    for &peer in peers {
        let more = if peer == Peer::Gateway { more } else { &[] };
        match peer.start(place, upstream, more)? {
            Some(server) => runners.push(Runner { peer, server, expected: peer.expected(place.completion, 1)? }),
            None => eprintln!("{}: absent on this machine", peer.title()),
        }
    }
    Ok(runners)
}

/// Our CPU per call divided by the peer's, round by round.
pub(crate) fn ratio(bursts: &Bursts, peer: Peer, load: usize) -> Option<Spread> {
    let ours = bursts.get(&(Peer::Gateway.name(), load))?;
    let theirs = bursts.get(&(peer.name(), load))?;
    Some(spread(ours.iter().zip(theirs).map(|(a, b)| a.cpu_per_call() / b.cpu_per_call())))
}

/// The table.
pub(crate) fn table(bursts: &Bursts) -> String {
    let mut text = String::new();
    for (load, (connections, streams)) in LOADS.into_iter().enumerate() {
        text += &format!("\n### {connections} connections × {streams} streams\n\n");
        text += "| server | CPU per call, µs | calls per second | gateway ÷ this | goal | |\n";
        text += "| --- | --- | --- | --- | --- | --- |\n";
        for peer in Peer::ALL {
            let Some(ours) = bursts.get(&(peer.name(), load)) else { continue };
            let cpu = spread(ours.iter().map(Burst::cpu_per_call));
            let rate = spread(ours.iter().map(Burst::calls_per_second));
            let (mut ratio_text, mut goal_text, mut verdict) = (String::new(), String::new(), "");
            if let Some(ratio) = ratio(bursts, peer, load).filter(|_| peer != Peer::Gateway) {
                ratio_text = format!("{:.2} ({:.2}–{:.2})", ratio.median, ratio.low, ratio.high);
                if let Some(goals) = peer.goals() {
                    goal_text = format!("≤ {:.2}", goals[load]);
                    verdict = if ratio.median <= goals[load] { "met" } else { "not met" };
                }
            }
            let limited = ours.iter().filter(|burst| burst.generator_limits()).count();
            let note = if limited * 2 > ours.len() { ", the generator was the bottleneck" } else { "" };
            text += &format!(
                "| {} | {:.2} ({:.2}–{:.2}) | {:.0}{note} | {ratio_text} | {goal_text} | {verdict} |\n",
                peer.title(),
                cpu.median,
                cpu.low,
                cpu.high,
                rate.median
            );
        }
    }
    text
}
