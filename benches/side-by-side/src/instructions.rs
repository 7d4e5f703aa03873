//! Instructions and allocations of one hit, counted by callgrind: what so many hits more cost a whole process. No noise of
//! the machine touches them, and batches are always the same size.

use std::{collections::HashSet, fs};

use side_by_side::{Outcome, job::VAULT};

use crate::{
    expected::Expected,
    load::{Keys, Load, Pace, Until},
    peers::{Peer, Place, gateway_command, gateway_environment},
    process::{self, Server},
    upstream::Upstream,
};

/// Streams on one connection.
const STREAMS: [usize; 2] = [32, 1];
/// Hits beyond the first, after which everything has warmed up.
const HITS: u64 = 3200;
/// What counts as an allocation.
const ALLOCATORS: [&str; 6] = ["malloc", "calloc", "realloc", "posix_memalign", "aligned_alloc", "memalign"];
/// How far a figure may move.
const TOLERANCE: f64 = 0.03;

#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    instructions: u64,
    allocations: u64,
}

/// The figures of one hit, a line each: `name value`.
pub(crate) fn lines(place: &Place, upstream: &Upstream, more: &[String]) -> Outcome<Vec<(String, f64)>> {
    let mut lines = Vec::new();
    for streams in STREAMS {
        let mut allocations = [0.0; 2];
        for (index, peer) in [Peer::Gateway, Peer::BareH2].into_iter().enumerate() {
            let [few, many] = [HITS, 2 * HITS].map(|hits| counted(peer, place, upstream, streams, hits, more));
            let (few, many) = (few?, many?);
            let each = |few: u64, many: u64| many.saturating_sub(few) as f64 / HITS as f64;
            allocations[index] = each(few.allocations, many.allocations);
            let name = format!("{}-instructions-{streams}", peer.name());
            lines.push((name, each(few.instructions, many.instructions)));
            lines.push((format!("{}-allocations-{streams}", peer.name()), allocations[index]));
        }
        lines.push((format!("allocations-beyond-h2-{streams}"), allocations[0] - allocations[1]));
    }
    Ok(lines)
}

/// Compares with what the file says; `false` if the gateway's instructions have changed by more than 3 %.
pub(crate) fn compare(lines: &[(String, f64)], file: &str) -> (String, bool) {
    let known = |name: &str| {
        let mut words = file.lines().filter_map(|line| line.split_once(' '));
        words.find(|(known, _)| *known == name).and_then(|(_, value)| value.trim().parse::<f64>().ok())
    };
    let (mut text, mut holds) = (String::new(), true);
    for (name, value) in lines {
        text += &format!("{name} {value:.1}");
        if let Some(before) = known(name) {
            let change = value / before - 1.0;
            text += &format!("  (in git {before:.1}, {:+.1} %)", change * 100.0);
            let is_bound = name.starts_with("gateway-instructions");
            holds &= !is_bound || change.abs() <= TOLERANCE;
        }
        text.push('\n');
    }
    (text, holds)
}

fn counted(
    peer: Peer,
    place: &Place,
    upstream: &Upstream,
    streams: usize,
    hits: u64,
    more: &[String],
) -> Outcome<Counts> {
    let address = process::free_address()?;
    let out = place.folder.join("callgrind.out").to_string_lossy().into_owned();
    let mut command = vec!["valgrind".to_owned(), "--tool=callgrind".to_owned(), format!("--callgrind-out-file={out}")];
    if peer == Peer::Gateway {
        command.extend(gateway_command(place, &address.to_string()));
        command.extend(["--lame-duck", "1ms", "--drain", "10s"].map(str::to_owned));
        command.extend_from_slice(more);
    } else {
        command.extend([place.binary(peer.name()), address.to_string(), place.completion.seconds().to_string()]);
    }
    let server = Server::start(&command, &gateway_environment(upstream), &place.server_core, address)?;
    let expected = if peer == Peer::Gateway {
        Expected::learnt(VAULT, place.completion, 1)?
    } else {
        peer.expected(place.completion, 1)?
    };
    let mut load = Load::connect(address, 1, peer.question(), expected)?;
    // The miss first, alone.
    load.run(1, Keys::One(0), Until::Asked(1), Pace::Waves)?;
    load.run(streams, Keys::One(0), Until::Asked(hits), Pace::Waves)?;
    drop(load);
    server.terminate()?;
    let counts = read(&fs::read_to_string(&out)?)?;
    fs::remove_file(&out)?;
    Ok(counts)
}

/// callgrind's format: `totals:` holds all instructions; after `cfn=(id) name`, `calls=count` says how often it was called,
/// and the name stands only where an id comes first.
fn read(text: &str) -> Outcome<Counts> {
    let (mut counts, mut allocators, mut is_allocator) = (Counts::default(), HashSet::new(), false);
    for line in text.lines() {
        if let Some(total) = line.strip_prefix("totals: ").or_else(|| line.strip_prefix("summary: ")) {
            counts.instructions = total.trim().parse()?;
        } else if let Some((kind, function)) = line.split_once('=').filter(|(kind, _)| matches!(*kind, "fn" | "cfn")) {
            let (id, name) = function.split_once(' ').unwrap_or((function, ""));
            if ALLOCATORS.contains(&name) {
                allocators.insert(id.to_owned());
            }
            if kind == "cfn" {
                is_allocator = allocators.contains(id);
            }
        } else if let Some(calls) = line.strip_prefix("calls=").filter(|_| is_allocator) {
            counts.allocations += calls.split(' ').next().unwrap_or_default().parse::<u64>()?;
        }
    }
    Ok(counts)
}
