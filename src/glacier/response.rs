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
    job::{JobKey, OWN_ACCOUNT},
    proto::v1::GlacierJobDescription,
    upstream::{UpstreamError, UpstreamErrorKind as Kind},
};

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

/// A description is about the job that it names; without a name it could be about any. A vault's ARN may be missing. One that
/// is there names the vault and the account, the latter perhaps without its leading zeros. Which account `-` stands for is
/// not known here: [`own_account`](crate::credentials) compares that.
fn check_identity(job: &GlacierJobDescription, key: &JobKey) -> Result<(), &'static str> {
    match job.job_id.as_deref() {
        None => return Err("the description names no job"),
        Some(id) if id != key.job_id() => return Err("the description names another job"),
        Some(_) => {}
    }
    let Some(arn) = job.vault_arn.as_deref() else { return Ok(()) };
    let Some(vault) = VaultArn::parse(arn) else { return Err("the description's VaultARN is none") };
    if vault.name != key.vault_name() {
        return Err("the description names another vault");
    }
    if key.account_id() != OWN_ACCOUNT && !vault.is_of(key.account_id()) {
        return Err("the description names another account");
    }
    Ok(())
}

/// `arn:{partition}:glacier:{region}:{account}:vaults/{name}`, as far as it matters here.
pub(super) struct VaultArn<'a> {
    /// Without leading zeros: ARNs have been seen without them.
    pub(super) account: &'a str,
    name: &'a str,
}

impl<'a> VaultArn<'a> {
    pub(super) fn parse(arn: &'a str) -> Option<Self> {
        let mut parts = arn.splitn(6, ':');
        let (scheme, _partition, service) = (parts.next()?, parts.next()?, parts.next()?);
        let (_region, account, resource) = (parts.next()?, parts.next()?, parts.next()?);
        let is_number = !account.is_empty() && account.bytes().all(|digit| digit.is_ascii_digit());
        let name = resource.strip_prefix("vaults/")?;
        (scheme == "arn" && service == "glacier" && is_number)
            .then_some(Self { account: account.trim_start_matches('0'), name })
    }

    fn is_of(&self, account: &str) -> bool {
        self.account == account.trim_start_matches('0')
    }
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
