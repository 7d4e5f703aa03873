//! What Glacier answers when nothing is wrong with the network: a pure function of the request and the store.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header, request::Parts};
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::{
    signature::{EmulatedCredentials, Refusal, VERSION, decode, verify},
    store::{Missing, Position, Store},
};

/// The only version of the API.
const API_VERSION: &str = "2012-06-01";
/// Most jobs on one page of a listing, and the default.
const PAGE_MAX: usize = 50;
/// Makes markers look like nothing in particular; they are not meant to be secret.
const MARKER_MASK: u64 = 0x9e37_79b9_7f4a_7c15;

/// An answer before it is put on the wire.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Reply {
    pub(crate) fn json(status: StatusCode, document: &Value) -> Self {
        let headers = [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))].into_iter().collect();
        Self { status, headers, body: document.to_string().into() }
    }
}

/// An error in Glacier's words.
#[derive(Debug)]
pub(crate) struct GlacierError {
    pub(crate) status: StatusCode,
    pub(crate) code: &'static str,
    pub(crate) message: String,
}

impl GlacierError {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into() }
    }

    fn invalid_parameter(message: String) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "InvalidParameterValueException", message)
    }

    fn not_found(message: String) -> Self {
        Self::new(StatusCode::NOT_FOUND, "ResourceNotFoundException", message)
    }

    pub(crate) fn reply(&self) -> Reply {
        Reply::json(self.status, &error_document(self.status, self.code, &self.message))
    }
}

impl From<Refusal> for GlacierError {
    fn from(refusal: Refusal) -> Self {
        let invalid_token = "The security token included in the request is invalid.";
        let (status, code, message) = match refusal {
            Refusal::Unsigned => (
                StatusCode::FORBIDDEN,
                "MissingAuthenticationTokenException",
                "Missing Authentication Token".to_owned(),
            ),
            Refusal::Incomplete(message) => (StatusCode::BAD_REQUEST, "IncompleteSignatureException", message),
            Refusal::UnknownKey | Refusal::WrongToken => {
                (StatusCode::FORBIDDEN, "UnrecognizedClientException", invalid_token.to_owned())
            }
            Refusal::Expired => {
                let message = "The security token included in the request is expired";
                (StatusCode::FORBIDDEN, "ExpiredTokenException", message.to_owned())
            }
            Refusal::Invalid(message) => (StatusCode::FORBIDDEN, "InvalidSignatureException", message),
        };
        Self { status, code, message }
    }
}

/// The body of every Glacier error. The type tells whose fault it is.
pub(crate) fn error_document(status: StatusCode, code: &str, message: &str) -> Value {
    let fault = if status.is_server_error() { "Server" } else { "Client" };
    json!({"code": code, "message": message, "type": fault})
}

/// What the answer depends on besides the request.
pub(crate) struct Premises<'a> {
    pub(crate) store: &'a Store,
    pub(crate) credentials: &'a [EmulatedCredentials],
    pub(crate) region: &'a str,
    pub(crate) account_id: &'a str,
    pub(crate) now: OffsetDateTime,
}

/// A path that the emulator serves.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) account: String,
    pub(crate) vault: String,
    /// `None` is the listing. An empty job id is one too, as with the real one.
    pub(crate) job_id: Option<String>,
}

impl Route {
    pub(crate) fn of(path: &str) -> Option<Self> {
        let segments: Vec<_> = path.strip_prefix('/')?.split('/').map(plain).collect();
        let (account, vault, job_id) = match segments.as_slice() {
            [account, vaults, vault, jobs] if vaults == "vaults" && jobs == "jobs" => (account, vault, None),
            [account, vaults, vault, jobs, job] if vaults == "vaults" && jobs == "jobs" => {
                (account, vault, Some(job.clone()).filter(|job| !job.is_empty()))
            }
            _ => return None,
        };
        Some(Self { account: account.clone(), vault: vault.clone(), job_id })
    }
}

fn plain(text: &str) -> String {
    String::from_utf8_lossy(&decode(text)).into_owned()
}

/// The answer to a request.
pub(crate) fn answer(premises: &Premises<'_>, request: &Parts, body: &[u8]) -> Result<Reply, GlacierError> {
    check_version(&request.headers)?;
    let signer = verify(request, body, premises.credentials, premises.region, premises.now)?;
    let own_account = signer.account_id.as_deref().unwrap_or(premises.account_id);
    let route = Route::of(request.uri.path()).filter(|_| request.method == Method::GET);
    let Some(route) = route else {
        let message = format!("No operation for {} {}", request.method, request.uri.path());
        return Err(GlacierError::new(StatusCode::NOT_FOUND, "UnknownOperationException", message));
    };
    let arn = premises.store.vault_arn(if route.account == "-" { own_account } else { &route.account }, &route.vault);
    if route.account != "-" && route.account != own_account {
        let action = if route.job_id.is_some() { "DescribeJob" } else { "ListJobs" };
        let user = format!("arn:aws:iam::{own_account}:user/emulated");
        let message = format!("User: {user} is not authorized to perform: glacier:{action} on resource: {arn}");
        return Err(GlacierError::new(StatusCode::FORBIDDEN, "AccessDeniedException", message));
    }
    let no_vault = || GlacierError::not_found(format!("Vault not found for ARN: {arn}"));
    let document = if let Some(job_id) = &route.job_id {
        premises.store.describe_of(own_account, &route.vault, job_id).map_err(|missing| match missing {
            Missing::Vault => no_vault(),
            Missing::Job => GlacierError::not_found(format!("The job ID was not found: {job_id}")),
        })?
    } else {
        let demand = Demand::parse(request.uri.query().unwrap_or_default())?;
        let jobs = premises.store.list_of(own_account, &route.vault, demand.after).ok_or_else(no_vault)?;
        demand.page(jobs)
    };
    Ok(Reply::json(StatusCode::OK, &document))
}

fn check_version(headers: &HeaderMap) -> Result<(), GlacierError> {
    match headers.get(VERSION) {
        None => {
            let message = "Required parameter missing: API version";
            Err(GlacierError::new(StatusCode::BAD_REQUEST, "MissingParameterValueException", message))
        }
        Some(version) if version == API_VERSION => Ok(()),
        Some(_) => Err(GlacierError::invalid_parameter("Unsupported API version".to_owned())),
    }
}

/// What a caller of ListJobs wants.
#[derive(Debug)]
struct Demand {
    completed: Option<bool>,
    status_code: Option<String>,
    limit: usize,
    after: Option<Position>,
}

impl Demand {
    fn parse(query: &str) -> Result<Self, GlacierError> {
        let mut demand = Self { completed: None, status_code: None, limit: PAGE_MAX, after: None };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = plain(value);
            let invalid = || GlacierError::invalid_parameter(format!("Invalid {name} value: {value}"));
            match name {
                "completed" => demand.completed = Some(value.parse().map_err(|_| invalid())?),
                "limit" => {
                    let limit = value.parse().ok().filter(|limit| (1..=PAGE_MAX).contains(limit));
                    demand.limit = limit.ok_or_else(invalid)?;
                }
                "marker" => demand.after = Some(read_marker(&value).ok_or_else(invalid)?),
                "statuscode" if ["InProgress", "Succeeded", "Failed"].contains(&value.as_str()) => {
                    demand.status_code = Some(value);
                }
                "statuscode" => return Err(invalid()),
                // An unknown parameter is no error: what the real one says to it is not documented.
                _ => {}
            }
        }
        Ok(demand)
    }

    fn wants(&self, job: &Value) -> bool {
        self.completed.is_none_or(|completed| job["Completed"] == completed)
            && self.status_code.as_ref().is_none_or(|status| job["StatusCode"] == status.as_str())
    }

    fn page(&self, jobs: Vec<(Position, Value)>) -> Value {
        let mut wanted = jobs.into_iter().filter(|(_, job)| self.wants(job));
        let page: Vec<_> = wanted.by_ref().take(self.limit).collect();
        let last = page.last().map(|(position, _)| *position);
        let marker = wanted.next().and(last).map(write_marker);
        let jobs: Vec<_> = page.into_iter().map(|(_, job)| job).collect();
        json!({"JobList": jobs, "Marker": marker})
    }
}

fn write_marker(after: Position) -> String {
    format!("{:016x}{:016x}", after.created_nanos ^ MARKER_MASK, after.sequence ^ MARKER_MASK)
}

fn read_marker(text: &str) -> Option<Position> {
    let (created, sequence) = text.is_ascii().then_some(text)?.split_at_checked(16)?;
    let number = |digits: &str| u64::from_str_radix(digits, 16).ok().filter(|_| digits.len() == 16);
    Some(Position { created_nanos: number(created)? ^ MARKER_MASK, sequence: number(sequence)? ^ MARKER_MASK })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_paths_are_told_apart_and_no_third_exists() {
        let route = |account: &str, vault: &str, job: Option<&str>| {
            Some(Route { account: account.into(), vault: vault.into(), job_id: job.map(Into::into) })
        };
        assert_eq!(Route::of("/-/vaults/v/jobs/-x"), route("-", "v", Some("-x")));
        assert_eq!(Route::of("/1/vaults/a%2Fb/jobs"), route("1", "a/b", None));
        assert_eq!(Route::of("/-/vaults/v/jobs/"), route("-", "v", None));
        for other in ["", "/", "/-/vaults/v", "/-/vaults/v/jobs/x/output", "/-/safes/v/jobs"] {
            assert_eq!(Route::of(other), None, "{other}");
        }
    }

    #[test]
    fn a_marker_is_read_back_and_rubbish_is_refused() {
        let position = Position { created_nanos: 1_700_000_000_000_000_000, sequence: 41 };
        let marker = write_marker(position);
        assert_eq!(read_marker(&marker), Some(position));
        for wrong in ["", "AB-_c", &marker[1..], &format!("{marker}0"), "ééééééééé", &"+".repeat(32)] {
            assert_eq!(read_marker(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn limits_outside_1_to_50_and_unknown_values_are_refused() {
        for query in ["limit=0", "limit=51", "limit=x", "completed=yes", "statuscode=Done", "marker=nowhere"] {
            let error = Demand::parse(query).unwrap_err();
            assert_eq!(error.code, "InvalidParameterValueException", "{query}");
        }
        let demand = Demand::parse("limit=50&completed=false&statuscode=InProgress&new=1").unwrap();
        assert_eq!((demand.limit, demand.completed), (50, Some(false)));
    }
}
