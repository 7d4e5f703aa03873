//! A soak: a whole gateway before an emulated Glacier with random faults, random callers, cancels, and jobs that progress.
//!
//! ```sh
//! cargo test --release --test soak -- --seconds 120
//! ```
//!
//! Everything runs in this process and on loopback. Every answer is checked for truth while it comes in ([`jobs`]); after
//! a warm-up, and again at the end, memory, descriptors and tasks are compared ([`vitals`]), and upstream requests are
//! counted against the bound. All the time hostile callers take what they can get ([`hostile`]), and memory has a ceiling. It ends with a summary, and with exit code 1 if anything was wrong. Times are printed,
//! never judged: the machine may be busy.

#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a soak that cannot go on ends")]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "the summary is the point")]

mod callers;
mod hostile;
mod jobs;
mod tally;
mod vitals;
mod weather;
mod world;

use std::{process::ExitCode, sync::Arc, time::Duration};

use tokio::time::Instant;

use self::{
    tally::Tally,
    vitals::Vitals,
    world::{JOBS, World},
};

const DEFAULT_SECONDS: u64 = 120;

fn main() -> ExitCode {
    let Some(seconds) = seconds_wanted(std::env::args().skip(1)) else {
        eprintln!("usage: cargo test --release --test soak -- [--seconds N], N from 4 to 86400");
        return ExitCode::from(2);
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let tally = runtime.block_on(soak(Duration::from_secs(seconds)));
    let violations = tally.violations();
    for violation in &violations {
        eprintln!("VIOLATION: {violation}");
    }
    println!("{}", if violations.is_empty() { "passed" } else { "FAILED" });
    if violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// `None`: the arguments cannot be understood.
fn seconds_wanted(arguments: impl Iterator<Item = String>) -> Option<u64> {
    let arguments: Vec<_> = arguments.collect();
    let seconds = match arguments.as_slice() {
        [] => DEFAULT_SECONDS,
        [flag, value] if flag == "--seconds" => value.parse().ok()?,
        [joined] => joined.strip_prefix("--seconds=")?.parse().ok()?,
        _ => return None,
    };
    (4..=86_400).contains(&seconds).then_some(seconds)
}

async fn soak(length: Duration) -> Arc<Tally> {
    let tally = Arc::new(Tally::default());
    let world = World::start(Arc::clone(&tally)).await;
    println!("soaking for {length:?}: {JOBS} jobs at a time, {} callers", callers::CALLERS);

    let idle = Vitals::read(&world);
    stress(&world, &idle, length / 4).await;
    let warm = Vitals::once_calm(&world, &idle).await;
    stress(&world, &warm, length * 3 / 4).await;
    let end = Vitals::once_calm(&world, &idle).await;

    for complaint in end.compared_with(&warm) {
        tally.violation(complaint);
    }
    world.jobs.retire_all(&world.emulator);
    println!("{}", tally.summary());
    println!("after idling:  {idle}\nafter warm-up: {warm}\nat the end:    {end}");
    tally.check_that_all_was_seen();
    let began = Instant::now();
    let drained = world.stop().await;
    println!("drained: {drained:?} after {:?}", began.elapsed());
    tally
}

/// Weather and callers for this long; returns when no caller waits for an answer any more.
async fn stress(world: &Arc<World>, floor: &Vitals, length: Duration) {
    let until = Instant::now() + length;
    let weather = tokio::spawn(weather::rage(Arc::clone(world), until));
    let progress = tokio::spawn(jobs::replace_the_gone(Arc::clone(world), until));
    let hostile = tokio::spawn(hostile::assail(Arc::clone(world), floor.clone(), until));
    callers::call(world, until).await;
    hostile.await.expect("the hostile do not panic");
    weather.await.expect("the weather does not panic");
    progress.await.expect("replacing jobs does not panic");
}
