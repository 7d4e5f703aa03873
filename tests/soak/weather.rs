//! Random faults on Glacier's side.
//!
//! None of them makes Glacier *lie* about a job (an invented "not found", a description that was never true): those the
//! gateway could not know. All that it must not believe is here.

use std::{sync::Arc, time::Duration};

use glacier_gateway::emulator::Fault;
use tokio::time::{Instant, sleep};

use crate::world::World;

/// Faults come and go until then, and are gone afterwards.
pub(crate) async fn rage(world: Arc<World>, until: Instant) {
    let faults = world.emulator.faults();
    while Instant::now() < until {
        match fastrand::u8(..40) {
            // A storm: everybody meets it.
            0 => {
                faults.always(storm());
                sleep(millis(500..4_000)).await;
                faults.clear();
            }
            // All answers wait behind a gate and then come at once.
            1 => {
                let hold = faults.hold();
                sleep(millis(50..1_500)).await;
                hold.release();
            }
            2..10 => {}
            _ if faults.queued() < 20 => faults.times(fastrand::usize(1..4), fault()),
            _ => {}
        }
        sleep(millis(5..100)).await;
    }
    faults.clear();
}

fn storm() -> Fault {
    match fastrand::u8(..6) {
        0 => Fault::error(503, "ServiceUnavailableException"),
        1 => Fault::throttled(),
        2 => Fault::reset(),
        3 => Fault::html(502),
        4 => Fault::never(),
        _ => Fault::delay(millis(200..2_000)),
    }
}

fn fault() -> Fault {
    let n = fastrand::usize(..400);
    match fastrand::u8(..26) {
        0 => Fault::error(500, "InternalServerError"),
        1 => Fault::error(503, "ServiceUnavailableException"),
        2 => Fault::throttled(),
        3 => Fault::throttled().with_header("x-amz-retry-after", "700"),
        4 => Fault::respond(429, &[], ""),
        5 | 6 => Fault::delay(millis(10..900)),
        7 => Fault::delay(millis(2_500..5_000)),
        8 => Fault::drip(200, millis(5..100)),
        9 => Fault::drip(1, Duration::from_millis(200)),
        10 => Fault::cut(n),
        11 => Fault::pass().reset_after(n),
        12 => Fault::reset(),
        13 => Fault::close(),
        14 => Fault::close_idle(),
        15 => Fault::garbage(random_bytes(n)),
        16 => Fault::garbage("{\"JobId\":\"another-job\",\"StatusCode\":\"Succeeded\"}"),
        17 => Fault::garbage("{\"JobId\":"),
        18 => Fault::html(200),
        19 => Fault::html(504),
        20 => Fault::redirect("http://127.0.0.1:9/"),
        21 => Fault::never(),
        22 => Fault::endless(),
        23 => Fault::error(403, "AccessDeniedException"),
        24 => Fault::error_saying(403, "InvalidSignatureException", "The canonical string: SECRET-TOKEN-ECHO"),
        _ => Fault::error(400, "NeverHeardOfException"),
    }
}

/// Nothing that begins like an object.
fn random_bytes(length: usize) -> Vec<u8> {
    std::iter::once(b'x').chain((0..length).map(|_| fastrand::u8(..))).collect()
}

fn millis(range: std::ops::Range<u64>) -> Duration {
    Duration::from_millis(fastrand::u64(range))
}
