//! What an answer of Glacier's says: the description, or why there is none.
//!
//! Pure. *Nothing lost*: a value that the schema cannot hold (an unknown enum value, a date that does not parse, a
//! member of the wrong type) leaves its typed field unset and is kept as text under its Glacier path in
//! `unrecognized_values`. `null` and missing are alike, unknown members are ignored, and of duplicate members the last
//! counts, as in AWS's SDKs.

mod description;
mod member;

use http::{HeaderMap, StatusCode};
use serde_json::{Map, Value, error::Category};

use crate::{
    glacier::{
        error,
        failure::{Cause, Failure},
    },
    job::JobKey,
    proto::v1::GlacierJobDescription,
    upstream::{UpstreamError, UpstreamErrorKind as Kind},
};

/// What separates the vault's name from the rest of its ARN.
const ARN_VAULTS: &str = ":vaults/";

/// An answer that arrived in full.
#[derive(Debug, Clone, Copy)]
pub(super) struct Answer<'a> {
    /// The HTTP status.
    pub(super) status: StatusCode,
    /// The headers.
    pub(super) headers: &'a HeaderMap,
    /// The body.
    pub(super) body: &'a [u8],
}

/// Reads an answer to the question about `key`.
pub(super) fn interpret(answer: &Answer<'_>, key: &JobKey) -> Result<GlacierJobDescription, Failure> {
    if answer.status.is_redirection() {
        // Following would carry the signature to a host that nobody configured.
        let error = error::failure(answer, Kind::Malformed, "a redirect, which is never followed");
        return Err(Failure::new(error, Cause::Permanent));
    }
    // Any success: the guide's syntax says 201 where the service says 200.
    if !answer.status.is_success() {
        return Err(error::classify(answer).into());
    }
    let members = parse_object(answer.body).map_err(|why| error::failure(answer, Kind::Malformed, why))?;
    let job = description::decode(members)
        .ok_or_else(|| error::failure(answer, Kind::Malformed, "a JSON object that describes no job"))?;
    check_identity(&job, key).map_err(|why| error::failure(answer, Kind::WrongJob, why))?;
    Ok(job)
}

fn parse_object(body: &[u8]) -> Result<Map<String, Value>, &'static str> {
    if body.is_empty() {
        return Err("an empty answer");
    }
    let value: Value = serde_json::from_slice(body).map_err(|e| match e.classify() {
        Category::Eof => "the JSON ends early",
        Category::Syntax | Category::Data | Category::Io => "the answer is not JSON",
    })?;
    match value {
        Value::Object(members) => Ok(members),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Err("the answer is not a JSON object")
        }
    }
}

/// Only what is said is checked: members may be missing. The account is not compared: `-` stands for one that we do not
/// know, and ARNs were seen with accounts of odd length.
fn check_identity(job: &GlacierJobDescription, key: &JobKey) -> Result<(), &'static str> {
    if job.job_id.as_deref().is_some_and(|id| id != key.job_id()) {
        return Err("the description names another job");
    }
    let vault = job.vault_arn.as_deref().and_then(|arn| arn.rsplit_once(ARN_VAULTS)).map(|(_, vault)| vault);
    if vault.is_some_and(|vault| vault != key.vault_name()) {
        return Err("the description names another vault");
    }
    Ok(())
}

impl crate::fuzzing::Door {
    /// [`interpret`].
    pub fn interpret(
        status: StatusCode,
        headers: &HeaderMap,
        body: &[u8],
        key: &JobKey,
    ) -> Result<GlacierJobDescription, UpstreamError> {
        interpret(&Answer { status, headers, body }, key).map_err(|failure| failure.error)
    }
}

#[cfg(test)]
mod tests;
