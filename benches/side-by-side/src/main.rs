//! The gateway beside its peers, in one run. `benches/README.md` says how to read what it prints.

#![expect(clippy::print_stdout, reason = "the table is what it is for")]

mod connection;
mod expected;
mod frames;
mod hits;
mod instructions;
mod load;
mod more;
mod peers;
mod plot;
mod process;
mod question;
mod statistics;
mod upstream;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Parser;
use peers::{Peer, Place};
use side_by_side::{Outcome, job::Completion};
use upstream::Upstream;

#[derive(Debug, Parser)]
struct Arguments {
    /// The gateway's binary
    #[arg(long)]
    gateway: String,
    /// Who is compared, by name [default: everybody]
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Rounds of bursts
    #[arg(long, default_value_t = 12)]
    rounds: usize,
    /// Milliseconds of one burst
    #[arg(long, default_value_t = 500)]
    burst: u64,
    /// Jobs in the large cache; a tenth of them is the smaller set
    #[arg(long, default_value_t = 1_000_000)]
    jobs: u32,
    /// Count instructions and allocations under callgrind instead, and compare them with this file
    #[arg(long)]
    instructions: Option<PathBuf>,
    /// Write the file anew
    #[arg(long, requires = "instructions")]
    update: bool,
    /// Where to draw CPU per call as an SVG
    #[arg(long)]
    plot: Option<PathBuf>,
    /// Which figures: hits, latency (with hits), misses, stampede, footprint, keys [default: all]
    #[arg(long, value_delimiter = ',')]
    figures: Vec<String>,
    /// The core of the servers; `run` puts this program on another
    #[arg(long, default_value = "0")]
    server_core: String,
    /// More arguments for the gateway, such as `--more=--log=warn`
    #[arg(long, allow_hyphen_values = true)]
    more: Vec<String>,
}

fn main() -> Outcome<()> {
    let arguments = Arguments::parse();
    let own = std::env::current_exe()?;
    let folder = std::env::temp_dir().join(format!("side-by-side-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let place = Place {
        gateway: arguments.gateway.clone(),
        binaries: own.parent().ok_or("no folder of its own")?.to_owned(),
        folder,
        server_core: arguments.server_core.clone(),
        completion: Completion::recent(),
    };
    let outcome = measure(&arguments, &place);
    std::fs::remove_dir_all(&place.folder)?;
    outcome
}

fn measure(arguments: &Arguments, place: &Place) -> Outcome<()> {
    let upstream = Upstream::start(place.completion)?;
    if let Some(file) = &arguments.instructions {
        return count(file, arguments, place, &upstream);
    }
    let is_among = |list: &[String], name: &str| list.is_empty() || list.iter().any(|one| one == name);
    let figure = |name| is_among(&arguments.figures, name);
    let (more, rounds, time) = (&arguments.more, arguments.rounds, Duration::from_millis(arguments.burst));
    let mut lines = Vec::new();
    if figure("hits") {
        let wanted: Vec<_> = Peer::ALL.into_iter().filter(|peer| is_among(&arguments.only, peer.name())).collect();
        let mut runners = hits::start(&wanted, place, &upstream, more)?;
        let bursts = hits::rounds(&mut runners, rounds, time)?;
        println!("## Hits\n{}", hits::table(&bursts));
        if let Some(file) = &arguments.plot {
            std::fs::write(file, plot::svg(&bursts))?;
        }
        if figure("latency") {
            lines = more::latency(&mut runners, &bursts, rounds, time)?;
        }
    }
    if figure("misses") {
        lines.extend(more::misses(place, &upstream, 5, 1000, more)?);
    }
    if figure("stampede") {
        lines.extend(more::stampede(place, &upstream, more)?);
    }
    if figure("footprint") {
        lines.extend(more::footprint(place, &upstream, 11, more)?);
    }
    if figure("keys") {
        lines.extend(more::keys(place, &upstream, arguments.jobs, rounds, time, more)?);
    }
    if !lines.is_empty() {
        println!("\n## Other figures\n\n{}", more::table(&lines));
    }
    Ok(())
}

fn count(file: &Path, arguments: &Arguments, place: &Place, upstream: &Upstream) -> Outcome<()> {
    let lines = instructions::lines(place, upstream, &arguments.more)?;
    if arguments.update {
        let mut text = String::new();
        for (name, value) in &lines {
            text += &format!("{name} {value:.1}\n");
        }
        std::fs::write(file, &text)?;
        println!("{text}");
        return Ok(());
    }
    let (text, holds) = instructions::compare(&lines, &std::fs::read_to_string(file)?);
    println!("{text}");
    if holds {
        Ok(())
    } else {
        Err("a hit's instructions changed by more than 3 %: mend it, or --update and say why".into())
    }
}
