//! Why a provider gave nothing, in words that hold no secret.
//!
//! The errors of AWS's providers quote what they read: a process's stderr, a container's answer, a whole response with the
//! keys in it. So nothing is repeated but what is known by its type (a status, a refusal's code and message, the system's
//! own reason), and of any other text the part before the first colon or full stop, which AWS's code has written itself.

use std::{error::Error, fmt::Display, io, iter};

use aws_config::imds::client::error::ImdsError;
use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_sts::{
    error::{ProvideErrorMetadata, SdkError},
    operation::{assume_role::AssumeRoleError, assume_role_with_web_identity::AssumeRoleWithWebIdentityError},
};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;

/// A longer text is cut.
const LONGEST: usize = 500;
/// How aws-config words a process that failed.
const PROCESS_FAILED: &str = "external process exited with code ";
/// How it words what a process or an endpoint left out.
const MISSING_FIELD: &str = "Expected field `";
/// How it words an endpoint's refusal.
const ENDPOINT_REFUSED: &str = "Non-success status from HTTP credential provider: StatusCode(";
/// How it words settings of a profile that it cannot follow; what comes after names profiles and keys.
const NOT_BUILT: &str = "ProfileFile provider could not be built: ";
/// How it words a session that nobody has signed in to lately.
const SSO_TOKEN: &str = "SSO token";
/// Codes of refusals whose messages can repeat a token or a signature.
const SECRETIVE: [&str; 4] = ["Signature", "Token", "InvalidClientTokenId", "Canonical"];

/// Why `error` happened.
pub(super) fn words(error: &CredentialsError) -> String {
    let chain = || iter::successors(Some(error as &(dyn Error + 'static)), |error| cause_of(*error));
    let known = chain().find_map(refusal).or_else(|| chain().find_map(status)).or_else(|| chain().find_map(marked));
    let text = known.unwrap_or_else(|| {
        // What is further out says only that something failed.
        let inner = || chain().filter(|error| !error.is::<CredentialsError>());
        let what = inner().filter(|error| !error.is::<io::Error>()).last().map(beginning);
        match (what, inner().last().and_then(system)) {
            (Some(what), Some(why)) if what != why => format!("{what}: {why}"),
            (Some(what), _) => what,
            (None, Some(why)) => why,
            (None, None) => "it failed".to_owned(),
        }
    });
    let text = if text.contains(SSO_TOKEN) { format!("{text}; run aws sso login") } else { text };
    text.chars().flat_map(char::escape_debug).take(LONGEST).collect()
}

/// An [`io::Error`] that wraps another error hides it from `source`.
fn cause_of<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e (dyn Error + 'static)> {
    match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(inner) => Some(inner),
        None => error.source(),
    }
}

/// A service that said no.
fn refusal(error: &(dyn Error + 'static)) -> Option<String> {
    let sts = || {
        refused_by::<AssumeRoleError>(error, "sts")
            .or_else(|| refused_by::<AssumeRoleWithWebIdentityError>(error, "sts"))
    };
    #[cfg(feature = "sign-in")]
    let sso = || refused_by::<aws_sdk_sso::operation::get_role_credentials::GetRoleCredentialsError>(error, "sso");
    #[cfg(not(feature = "sign-in"))]
    let sso = || None;
    sts().or_else(sso)
}

fn refused_by<E: Error + ProvideErrorMetadata + 'static>(error: &(dyn Error + 'static), who: &str) -> Option<String> {
    let SdkError::ServiceError(refusal) = error.downcast_ref::<SdkError<E, HttpResponse>>()? else { return None };
    let (status, meta) = (refusal.raw().status().as_u16(), refusal.err().meta());
    Some(match (meta.code(), meta.message()) {
        (Some(code), Some(message)) if !SECRETIVE.iter().any(|part| code.contains(part) || message.contains(part)) => {
            format!("{who} refused with {status} {code}: {message}")
        }
        (Some(code), _) => format!("{who} refused with {status} {code}"),
        (None, _) => format!("{who} refused with {status}"),
    })
}

fn status(error: &(dyn Error + 'static)) -> Option<String> {
    match error.downcast_ref::<ImdsError>()? {
        ImdsError::ErrorResponse(answer) => Some(format!("answered {}", answer.response().status().as_u16())),
        _ => None,
    }
}

/// Texts of aws-config that have no type, by how they begin.
fn marked(error: &(dyn Error + 'static)) -> Option<String> {
    let text = error.to_string();
    let after = |mark: &str| text.split_once(mark).map(|(_, after)| after.to_owned());
    if let Some(ended) = after(PROCESS_FAILED) {
        let ended = ended.split(". ").next().unwrap_or_default();
        return Some(format!("credential_process ended with {ended}; what it wrote is not logged"));
    }
    if let Some(status) = after(ENDPOINT_REFUSED) {
        return Some(format!("answered {}", status.trim_end_matches(')')));
    }
    if let Some(field) = after(MISSING_FIELD) {
        return Some(format!("{} is missing in what it gave", field.split('`').next().unwrap_or_default()));
    }
    // Names of profiles and keys.
    after(NOT_BUILT)
}

/// What comes before the first value, as AWS's code words it.
fn beginning(error: impl Display) -> String {
    let text = error.to_string();
    let words = text.split(':').next().unwrap_or_default();
    words.split(". ").next().unwrap_or_default().to_owned()
}

/// The system's own reason.
fn system(error: &(dyn Error + 'static)) -> Option<String> {
    let error = error.downcast_ref::<io::Error>()?;
    Some(error.raw_os_error().map_or_else(|| error.kind().to_string(), |_| error.to_string()))
}
