//! Random callers: who asks about what, how patiently, and whether what they hear may be said.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use glacier_gateway::proto::v1::{DescribeJobRequest, DescribeJobResponse, GlacierJobDescription};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tonic::{Code, Request, Response, Status};
use tonic_types::StatusExt as _;

use crate::{
    jobs::{Stage, VAULT},
    world::{FLOOR, FRESH_AT_MOST, STALE, World},
};

/// How many ask at the same time.
pub(crate) const CALLERS: usize = 64;
/// The longest that a call may take whatever its deadline: the gateway's own limit, and a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);
/// The gateway's own limit on a call.
const LONGEST_CALL: Duration = Duration::from_secs(10);

/// Every reason that may be heard here, with its status.
const REASONS: [(&str, Code); 16] = [
    ("INVALID_REQUEST", Code::InvalidArgument),
    ("VAULT_NOT_FOUND", Code::NotFound),
    ("JOB_NOT_FOUND", Code::NotFound),
    ("JOB_EXPIRED", Code::NotFound),
    ("GLACIER_ACCESS_DENIED", Code::PermissionDenied),
    ("GLACIER_THROTTLED", Code::ResourceExhausted),
    ("GLACIER_UNAVAILABLE", Code::Unavailable),
    ("GLACIER_MALFORMED_RESPONSE", Code::Internal),
    ("GLACIER_WRONG_JOB", Code::Internal),
    ("GLACIER_UNEXPECTED_ERROR", Code::Internal),
    ("GATEWAY_CREDENTIALS_REJECTED", Code::Internal),
    ("GATEWAY_OVERLOADED", Code::Unavailable),
    ("DEADLINE_EXCEEDED", Code::DeadlineExceeded),
    // Never seen so far, and legal.
    ("GATEWAY_CREDENTIALS_UNAVAILABLE", Code::Unavailable),
    ("GLACIER_INVALID_PARAMETER", Code::InvalidArgument),
    ("GLACIER_CLOSED_TO_ACCOUNT", Code::FailedPrecondition),
];

/// Callers until then; returns when the last one has heard its answer.
pub(crate) async fn call(world: &Arc<World>, until: Instant) {
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        let world = Arc::clone(world);
        callers.spawn(async move {
            while Instant::now() < until {
                one_call(&world).await;
                sleep(Duration::from_millis(fastrand::u64(..40))).await;
            }
        });
    }
    while let Some(ended) = callers.join_next().await {
        ended.expect("a caller does not panic");
    }
}

async fn one_call(world: &World) {
    match fastrand::u8(..100) {
        0 => {
            ask_about_nothing(world, about("a/b"), "INVALID_REQUEST").await;
        }
        1 => {
            let no_vault = DescribeJobRequest { vault_name: "no-such-vault".into(), ..about("x") };
            ask_about_nothing(world, no_vault, "VAULT_NOT_FOUND").await;
        }
        2..5 => {
            let unknown = about(&format!("unknown-{}", fastrand::u8(..40)));
            ask_about_nothing(world, unknown, "JOB_NOT_FOUND").await;
        }
        _ => ask_about_a_job(world).await,
    }
}

fn about(job_id: &str) -> DescribeJobRequest {
    DescribeJobRequest { vault_name: VAULT.into(), job_id: job_id.into(), ..DescribeJobRequest::default() }
}

async fn ask_about_nothing(world: &World, request: DescribeJobRequest, expected: &str) {
    let Some((answer, _)) = ask(world, request, None).await else { return };
    match answer {
        Ok(response) => world.tally.violation(format!("an answer about nothing: {response:?}")),
        Err(status) => {
            let reason = reason(world, &status);
            // Glacier may have failed before it could say so.
            if status.code() == Code::NotFound && reason != expected {
                world.tally.violation(format!("{reason} instead of {expected}"));
            }
        }
    }
}

async fn ask_about_a_job(world: &World) {
    let job = world.jobs.pick();
    let max_age = (fastrand::u8(..2) == 0).then(|| Duration::from_millis(fastrand::u64(..6_000)));
    let patience = match fastrand::u8(..4) {
        0 => None,
        1 => Some(Duration::from_millis(fastrand::u64(1..100))),
        _ => Some(Duration::from_millis(fastrand::u64(100..12_000))),
    };
    let mut request = about(&job.id);
    request.max_age = max_age.map(|age| age.try_into().unwrap());
    let before = job.heard();
    let sent = world.clock.now().wall;
    let Some((answer, received)) = ask(world, request, patience).await else { return };
    let verdict = match answer {
        Ok(response) => {
            let checked = job.check_description(response.get_ref(), before, received);
            checked.and_then(|(observed, stage)| check_age(&response, observed, stage, max_age, sent, received))
        }
        Err(status) => match reason(world, &status).as_str() {
            reason @ ("JOB_NOT_FOUND" | "JOB_EXPIRED") => job.check_gone(reason, received),
            reason @ ("INVALID_REQUEST" | "VAULT_NOT_FOUND") => Err(format!("{reason} about a job that was there")),
            _ => Ok(()),
        },
    };
    if let Err(wrong) = verdict {
        world.tally.violation(wrong);
    }
}

/// Asks, and counts the answer. `None`: the caller went away, or waited in vain.
async fn ask(
    world: &World,
    request: DescribeJobRequest,
    patience: Option<Duration>,
) -> Option<(Result<Response<DescribeJobResponse>, Status>, SystemTime)> {
    let mut request = Request::new(request);
    if let Some(patience) = patience {
        let value = format!("{}m", patience.as_millis());
        request.metadata_mut().insert("grpc-timeout", value.parse().unwrap());
    }
    let goes_away = fastrand::u8(..12) == 0;
    let waits = if goes_away { Duration::from_micros(fastrand::u64(..50_000)) } else { PATIENCE };
    let began = Instant::now();
    let mut client = world.client();
    let Ok(answer) = timeout(waits, client.describe_job(request)).await else {
        if goes_away {
            world.tally.cancelled();
        } else {
            world.tally.violation(format!("no answer in {PATIENCE:?}"));
        }
        return None;
    };
    let (took, received) = (began.elapsed(), world.clock.now().wall);
    let outcome = match &answer {
        Ok(response) => format!("OK {}", stage_of(response.get_ref())),
        Err(status) => format!("{:?} {}", status.code(), raw_reason(status)),
    };
    let metadata = answer.as_ref().map_or_else(Status::metadata, Response::metadata);
    let cache = metadata.get("cache-status").and_then(|value| value.to_str().ok());
    let late = took > patience.unwrap_or(LONGEST_CALL).min(LONGEST_CALL) + Duration::from_millis(50);
    world.tally.answered(&outcome, cache, took, late);
    Some((answer, received))
}

fn stage_of(response: &DescribeJobResponse) -> &'static str {
    let completed = response.job.as_ref().is_some_and(GlacierJobDescription::completed);
    if completed { "Final" } else { "InProgress" }
}

fn raw_reason(status: &Status) -> String {
    status.get_details_error_info().map_or_else(|| "(no reason)".to_owned(), |info| info.reason)
}

/// The reason, which must be a known one with its own status, in our own words.
fn reason(world: &World, status: &Status) -> String {
    let reason = raw_reason(status);
    if !REASONS.contains(&(reason.as_str(), status.code())) {
        world.tally.violation(format!("an unknown error: {status:?}"));
    }
    if format!("{status:?}").contains("SECRET-TOKEN-ECHO") || status.message().len() > 1024 {
        world.tally.violation("an error repeats upstream text, or is huge".to_owned());
    }
    reason
}

/// Checks the age of an answer. The gateway judged it no sooner than the call was sent, so an answer that was too old
/// then was over-aged however slow this machine is.
fn check_age(
    response: &Response<DescribeJobResponse>,
    observed: SystemTime,
    stage: Stage,
    max_age: Option<Duration>,
    sent: SystemTime,
    received: SystemTime,
) -> Result<(), String> {
    let header = |name: &str| response.metadata().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let claimed: u64 = header("age").parse().map_err(|_| "no age".to_owned())?;
    let (at_least, at_most) =
        (sent.duration_since(observed).unwrap_or_default(), received.duration_since(observed).unwrap_or_default());
    let policy = match stage {
        Stage::InProgress => FRESH_AT_MOST + STALE,
        Stage::Final | Stage::Gone => Duration::MAX,
    };
    let fresh = if stage == Stage::InProgress { FRESH_AT_MOST } else { Duration::MAX };
    let cache = header("cache-status");
    let is_stale = cache.contains("ttl=-") || cache.contains("detail=");
    let wrong = if at_least > max_age.map_or(Duration::MAX, |age| age.max(FLOOR)) {
        "older than the caller accepts"
    } else if at_least > policy {
        "older than the policy allows"
    } else if at_least > fresh && !is_stale {
        "stale, and called fresh"
    } else if claimed > at_most.as_secs() || claimed < at_least.as_secs() {
        "not as old as it claims"
    } else {
        return Ok(());
    };
    Err(format!("{wrong}: between {at_least:?} and {at_most:?}, max_age {max_age:?}, age {claimed}, {cache}"))
}
