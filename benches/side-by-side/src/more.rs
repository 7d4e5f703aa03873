//! The other figures: many keys, latency under half of the capacity, misses, a stampede, memory and start.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::SocketAddr,
    process::{Child, ChildStdin, ChildStdout, Stdio},
    time::{Duration, Instant},
};

use side_by_side::{Outcome, job::VAULT};

use crate::{
    expected::Expected,
    hits::{self, Burst, Bursts, LOADS, Runner},
    load::{Keys, Load, Pace, Until},
    peers::{GRPC, Peer, Place, gateway_command, gateway_environment},
    process::{self, Cpu, Server},
    question::Question,
    statistics::{quantile, spread},
    upstream::Upstream,
};

/// A line of the second table: what was measured, how much it is, what it should be, and whether it is.
#[derive(Debug)]
pub(crate) struct Line {
    figure: String,
    value: String,
    goal: Option<(String, bool)>,
}

impl Line {
    fn new(figure: impl Into<String>, value: impl Into<String>) -> Self {
        Self { figure: figure.into(), value: value.into(), goal: None }
    }

    fn goal(mut self, goal: &str, is_met: bool) -> Self {
        self.goal = Some((goal.to_owned(), is_met));
        self
    }
}

/// The table.
pub(crate) fn table(lines: &[Line]) -> String {
    let mut text = "| figure | value | goal | |\n| --- | --- | --- | --- |\n".to_owned();
    for Line { figure, value, goal } in lines {
        let (goal, verdict) = match goal {
            Some((goal, true)) => (goal.as_str(), "met"),
            Some((goal, false)) => (goal.as_str(), "not met"),
            None => ("", ""),
        };
        text += &format!("| {figure} | {value} | {goal} | {verdict} |\n");
    }
    text
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

/// p50, p99 and p99.9 in microseconds.
fn percentiles(latencies: &[Duration]) -> [f64; 3] {
    let mut sorted: Vec<_> = latencies.iter().copied().map(micros).collect();
    sorted.sort_by(f64::total_cmp);
    [0.5, 0.99, 0.999].map(|share| quantile(&sorted, share))
}

/// One measurement of latency at a fixed rate, in microseconds.
struct Paced {
    percentiles: [f64; 3],
    /// How late questions left by the generator's own fault, at the 99th percentile.
    late: f64,
}

impl Paced {
    /// Whether questions themselves left late: the generator's core was not its own, or its processor not the machine's.
    fn is_disturbed(&self) -> bool {
        self.late > self.percentiles[1] / 10.0
    }
}

/// Latency at half of what each can do with 32 streams, at even distances. Short bursts of both in turns: what holds up the
/// machine for some milliseconds spoils one of them and not all, and a pair that it spoilt is left out.
pub(crate) fn latency(runners: &mut [Runner], bursts: &Bursts, rounds: usize, time: Duration) -> Outcome<Vec<Line>> {
    const PARTS: u32 = 10;
    let mut measured: Vec<(Peer, f64, Vec<Paced>)> = Vec::new();
    for peer in [Peer::Gateway, Peer::BareH2] {
        let Some(known) = bursts.get(&(peer.name(), 0)) else { return Ok(Vec::new()) };
        measured.push((peer, spread(known.iter().map(Burst::calls_per_second)).median / 2.0, Vec::new()));
    }
    for _ in 0..rounds {
        let mut loads = Vec::new();
        for (peer, rate, _) in &measured {
            let runner = runners.iter().find(|runner| runner.peer.name() == peer.name()).ok_or("not running")?;
            let mut load =
                Load::connect(runner.server.address, LOADS[0].0, peer.question(), runner.expected.clone())?;
            // Connections and caches of the processor warm up.
            load.run_at(*rate, Keys::One(0), time / PARTS, 200)?;
            loads.push(load);
        }
        for _ in 0..PARTS {
            let mut order = [0, 1];
            fastrand::shuffle(&mut order);
            for index in order {
                let (_, rate, into) = &mut measured[index];
                let (_, latencies, late) = loads[index].run_at(*rate, Keys::One(0), time / PARTS, 200)?;
                into.push(Paced { percentiles: percentiles(&latencies), late: micros(late) });
            }
        }
    }
    Ok(latency_lines(&measured))
}

fn latency_lines(measured: &[(Peer, f64, Vec<Paced>)]) -> Vec<Line> {
    let [(_, _, ours), (_, _, theirs)] = measured else { return Vec::new() };
    let fair: Vec<_> =
        ours.iter().zip(theirs).map(|(a, b)| !a.is_disturbed() && !b.is_disturbed()).collect();
    let (used, all) = (fair.iter().filter(|fair| **fair).count(), fair.len());
    let mut lines = Vec::new();
    for (peer, rate, bursts) in measured {
        let fair: Vec<_> = bursts.iter().zip(&fair).filter(|(_, fair)| **fair).map(|(burst, _)| burst).collect();
        if fair.is_empty() {
            continue;
        }
        let [p50, p99, p999] = [0, 1, 2].map(|i| spread(fair.iter().map(|burst| burst.percentiles[i])).median);
        let figure = format!("{}, at {rate:.0} calls per second: p50, p99, p99.9", peer.title());
        lines.push(Line::new(figure, format!("{p50:.0} µs, {p99:.0} µs, {p999:.0} µs")));
    }
    let figure = "p99 at half of capacity ÷ bare h2's";
    if used * 2 < all {
        let why = format!("no verdict: the generator was held up in {} of {all} pairs of bursts", all - used);
        lines.push(Line::new(figure, why));
        return lines;
    }
    let pairs = ours.iter().zip(theirs).zip(&fair).filter(|(_, fair)| **fair);
    let ratio = spread(pairs.map(|((a, b), _)| a.percentiles[1] / b.percentiles[1]));
    let value = format!(
        "{:.2} ({:.2}–{:.2}); {used} of {all} pairs of bursts, in the others the generator was held up",
        ratio.median, ratio.low, ratio.high
    );
    lines.push(Line::new(figure, value).goal("≤ 1.5", ratio.median <= 1.5));
    lines
}

/// A gateway that holds `jobs` jobs: memory for each, and hits on one key, a tenth of them and all of them.
pub(crate) fn keys(
    place: &Place,
    upstream: &Upstream,
    jobs: u32,
    rounds: usize,
    time: Duration,
    more: &[String],
) -> Outcome<Vec<Line>> {
    let more: Vec<_> =
        ["--cache-capacity", "8GiB"].into_iter().map(str::to_owned).chain(more.iter().cloned()).collect();
    let server = Peer::Gateway.start(place, upstream, &more)?.ok_or("no gateway")?;
    let mut load =
        Load::connect(server.address, 8, Peer::Gateway.question(), Expected::learnt(VAULT, place.completion, jobs)?)?;
    // Connections, buffers and the allocator's first growth are not the jobs'.
    load.run(8, Keys::InTurn(0..1000), Until::Asked(u64::MAX), Pace::Closed)?;
    let (before, start) = (process::resident(server.id())?, Instant::now());
    load.run(8, Keys::InTurn(1000..jobs), Until::Asked(u64::MAX), Pace::Closed)?;
    eprintln!("{jobs} jobs asked for in {:.0} s", start.elapsed().as_secs_f64());
    let grown = process::resident(server.id())?.saturating_sub(before);
    let per_job = grown as f64 / f64::from(jobs - 1000) / 1024.0;
    let mut lines = vec![
        Line::new(format!("memory per cached job, {jobs} jobs"), format!("{per_job:.2} KiB"))
            .goal("≤ 1.2 KiB", per_job <= 1.2),
    ];
    let mut runner = Runner { peer: Peer::Gateway, server, expected: load.into_expected() };
    let counts = [1, jobs / 10, jobs];
    let mut bursts: [Vec<f64>; 3] = Default::default();
    for _ in 0..rounds {
        let mut order = [0, 1, 2];
        fastrand::shuffle(&mut order);
        for index in order {
            let burst = hits::burst(&mut runner, LOADS[0], &Keys::Random(counts[index]), time)?;
            bursts[index].push(1e6 / burst.cpu_per_call());
        }
    }
    for (index, goal) in [(1, 0.85), (2, 0.75)] {
        let ratio = spread(bursts[index].iter().zip(&bursts[0]).map(|(many, one)| many / one));
        let value = format!("{:.2} ({:.2}–{:.2})", ratio.median, ratio.low, ratio.high);
        let figure = format!("hits per second of CPU, {} random keys ÷ one key", counts[index]);
        lines.push(Line::new(figure, value).goal(&format!("≥ {goal}"), ratio.median >= goal));
    }
    Ok(lines)
}

/// A program that asks the upstream without a gateway (`side_by_side::asking`).
struct Asker {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Asker {
    /// `None` if it was not built.
    fn start(place: &Place, name: &str, upstream: &Upstream) -> Outcome<Option<Self>> {
        let program = place.binary(name);
        if !fs::exists(&program)? {
            return Ok(None);
        }
        let command = [program, format!("http://{}", upstream.address)];
        let mut child = process::pinned(&command, &place.server_core)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()?;
        let (orders, answers) = (child.stdin.take().ok_or("no stdin")?, child.stdout.take().ok_or("no stdout")?);
        Ok(Some(Self { child, orders, answers: BufReader::new(answers) }))
    }

    /// Median latency, and CPU per call, both in microseconds.
    fn ask(&mut self, first: u32, count: u32, parallel: u32) -> Outcome<[f64; 2]> {
        let before = Cpu::of(self.child.id())?;
        writeln!(self.orders, "{first} {count} {parallel}")?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        let used = Cpu::of(self.child.id())?.since(&before);
        Ok([line.trim().parse::<f64>()? / 1e3, micros(used) / f64::from(count)])
    }
}

impl Drop for Asker {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Misses beside a plain GET and beside the official SDK, one and sixteen at a time.
pub(crate) fn misses(
    place: &Place,
    upstream: &Upstream,
    rounds: u32,
    count: u32,
    more: &[String],
) -> Outcome<Vec<Line>> {
    let server = Peer::Gateway.start(place, upstream, more)?.ok_or("no gateway")?;
    let mut plain = Asker::start(place, "plain-get", upstream)?.ok_or("plain-get is not built")?;
    let mut sdk = Asker::start(place, "sdk", upstream)?;
    // One round to warm up; no key twice.
    let jobs = (rounds + 1) * count * 2;
    let expected = Expected::learnt(VAULT, place.completion, jobs)?;
    let mut load = Load::connect(server.address, 1, Peer::Gateway.question(), expected)?;
    let mut lines = Vec::new();
    let mut first = 0;
    for (parallel, goal) in [(1_u32, 0.75), (16, 0.5)] {
        let (mut ours, mut hits, mut gets, mut official) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for round in 0..=rounds {
            let before = Cpu::of(server.id())?;
            let keys = Keys::InTurn(first..first + count);
            let (_, latencies) = load.run_timed(parallel as usize, keys, Until::Asked(u64::MAX))?;
            let cpu = micros(Cpu::of(server.id())?.since(&before)) / f64::from(count);
            let before = Cpu::of(server.id())?;
            load.run(parallel as usize, Keys::One(first), Until::Asked(count.into()), Pace::Closed)?;
            let hit = micros(Cpu::of(server.id())?.since(&before)) / f64::from(count);
            let get = plain.ask(first, count, parallel)?;
            let theirs = sdk.as_mut().map(|sdk| sdk.ask(first, count, parallel)).transpose()?;
            first += count;
            if round > 0 {
                ours.push([percentiles(&latencies)[0], cpu]);
                hits.push(hit);
                gets.push(get);
                official.extend(theirs);
            }
        }
        let at = |values: &[[f64; 2]], index: usize| spread(values.iter().map(|v| v[index])).median;
        let value = format!(
            "gateway {:.0} µs (a hit asked for in the same way {:.0} µs), reqwest GET {:.0} µs, SDK {:.0} µs",
            at(&ours, 1),
            spread(hits).median,
            at(&gets, 1),
            at(&official, 1)
        );
        lines.push(Line::new(format!("a miss, {parallel} at a time: CPU"), value));
        if parallel == 1 {
            let added = spread(ours.iter().zip(&gets).map(|(a, b)| a[0] - b[0]));
            let value = format!("{:.0} µs ({:.0}–{:.0})", added.median, added.low, added.high);
            let line = Line::new("a miss: added median latency over a plain reqwest GET", value);
            lines.push(line.goal("≤ 150 µs", added.median <= 150.0));
        }
        let figure = format!("a miss, {parallel} at a time: CPU ÷ the SDK's describe_job");
        if official.is_empty() {
            lines.push(Line::new(figure, "not measured: SIDE_BY_SIDE_SDK=1 builds the SDK's program"));
        } else {
            let ratio = spread(ours.iter().zip(&official).map(|(a, b)| a[1] / b[1]));
            let value = format!("{:.2} ({:.2}–{:.2})", ratio.median, ratio.low, ratio.high);
            lines.push(Line::new(figure, value).goal(&format!("≤ {goal}"), ratio.median <= goal));
        }
    }
    Ok(lines)
}

/// 10,000 callers who want the same job, which nobody knows yet; again and again, about another job each time.
pub(crate) fn stampede(place: &Place, upstream: &Upstream, more: &[String]) -> Outcome<Vec<Line>> {
    const LATENCY: Duration = Duration::from_millis(300);
    const TIMES: u32 = 7;
    let vault = format!("slow-{}", LATENCY.as_millis());
    let server = Peer::Gateway.start(place, upstream, more)?.ok_or("no gateway")?;
    let mut expected = Expected::learnt(&vault, place.completion, TIMES)?;
    let (mut beyond, mut is_right) = (Vec::new(), true);
    for job in 0..TIMES {
        let mut load = Load::connect(server.address, 50, Question::new(&vault, GRPC), expected)?;
        let before = upstream.calls();
        let tally = load.run(200, Keys::One(job), Until::Asked(10_000), Pace::Closed)?;
        is_right &= upstream.calls() - before == 1 && tally.calls == 10_000;
        beyond.push(tally.elapsed.saturating_sub(LATENCY).as_secs_f64() * 1e3);
        expected = load.into_expected();
    }
    let beyond = spread(beyond);
    let calls = if is_right { "1 upstream call" } else { "more than 1 upstream call" };
    let value =
        format!("{calls}; the last answer {:.0} ms ({:.0}–{:.0}) after it", beyond.median, beyond.low, beyond.high);
    let figure = format!("10,000 callers, one cold key, upstream latency {} ms", LATENCY.as_millis());
    Ok(vec![Line::new(figure, value).goal("1 call, 50 ms", is_right && beyond.median <= 50.0)])
}

/// From the start of the process to its first answer, memory before any call, and the size of the binary.
pub(crate) fn footprint(place: &Place, upstream: &Upstream, starts: usize, more: &[String]) -> Outcome<Vec<Line>> {
    let mut times = Vec::new();
    for _ in 0..starts {
        let address = process::free_address()?;
        let start = Instant::now();
        let server = started(place, upstream, address, more)?;
        let expected = Expected::learnt(VAULT, place.completion, 1)?;
        let mut load = Load::connect(server.address, 1, Peer::Gateway.question(), expected)?;
        load.run(1, Keys::One(0), Until::Asked(1), Pace::Closed)?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    let server = started(place, upstream, process::free_address()?, more)?;
    std::thread::sleep(Duration::from_secs(1));
    let mebibyte = 1024.0 * 1024.0;
    let (start, idle) = (spread(times), process::resident(server.id())? as f64 / mebibyte);
    let size = fs::metadata(&place.gateway)?.len() as f64 / mebibyte;
    Ok(vec![
        Line::new(
            "process start to first answer",
            format!("{:.1} ms ({:.1}–{:.1})", start.median, start.low, start.high),
        )
        .goal("≤ 20 ms", start.median <= 20.0),
        Line::new("idle RSS", format!("{idle:.1} MiB")).goal("≤ 12 MiB", idle <= 12.0),
        Line::new("lean release binary, stripped", format!("{size:.1} MiB")).goal("≤ 15 MiB", size <= 15.0),
    ])
}

fn started(place: &Place, upstream: &Upstream, address: SocketAddr, more: &[String]) -> Outcome<Server> {
    let mut command = gateway_command(place, &address.to_string());
    command.extend_from_slice(more);
    Server::start(&command, &gateway_environment(upstream), &place.server_core, address)
}
