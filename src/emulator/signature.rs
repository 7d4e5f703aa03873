//! AWS Signature Version 4, from the verifying side, and the credentials that it verifies against.
//!
//! Written from the specification with nothing but HMAC and SHA-256: the gateway signs with AWS's own crate, and a
//! verifier that shared it would share its mistakes. Proven with published vectors (see the tests).

use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderMap, HeaderName, Uri, request::Parts};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;

use super::dates::{parse_signature_date, signature_date};

/// How far a signature's date may be from the server's clock.
const TOLERANCE: time::Duration = time::Duration::minutes(5);
const ALGORITHM: &str = "AWS4-HMAC-SHA256";
const SERVICE: &str = "glacier";
const SECURITY_TOKEN: &str = "x-amz-security-token";
const DATE: &str = "x-amz-date";
/// The header without which Glacier refuses everything.
pub(crate) const VERSION: &str = "x-amz-glacier-version";

/// A key pair that the emulator knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmulatedCredentials {
    /// `AKIA…` or `ASIA…`.
    pub access_key_id: String,
    /// Signs.
    pub secret_access_key: String,
    /// With temporary credentials: must come with every request, and be signed.
    pub session_token: Option<String>,
    /// The account that `-` means under these credentials; `None` means the emulator's.
    pub account_id: Option<String>,
    /// Requests are answered with `ExpiredTokenException`.
    pub expired: bool,
}

impl EmulatedCredentials {
    /// Long-lived credentials of the emulator's account.
    pub fn new(access_key_id: impl Into<String>, secret_access_key: impl Into<String>) -> Self {
        Self {
            access_key_id: access_key_id.into(),
            secret_access_key: secret_access_key.into(),
            session_token: None,
            account_id: None,
            expired: false,
        }
    }

    /// The same as temporary credentials.
    #[must_use]
    pub fn with_session_token(self, token: impl Into<String>) -> Self {
        Self { session_token: Some(token.into()), ..self }
    }

    /// The same for another account, of 12 digits.
    #[must_use]
    pub fn of_account(self, account_id: impl Into<String>) -> Self {
        Self { account_id: Some(account_id.into()), ..self }
    }

    /// The same, past its expiry.
    #[must_use]
    pub fn expired(self) -> Self {
        Self { expired: true, ..self }
    }
}

/// The key pair of AWS's own examples.
impl Default for EmulatedCredentials {
    fn default() -> Self {
        Self::new("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
    }
}

/// Why a request's signature was refused, with Glacier's message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    Unsigned,
    /// The `Authorization` header cannot be read.
    Incomplete(String),
    UnknownKey,
    WrongToken,
    Expired,
    Invalid(String),
}

/// The parts of an `Authorization` header.
struct Authorization<'a> {
    access_key_id: &'a str,
    /// `date/region/service/aws4_request`.
    scope: &'a str,
    signed_headers: Vec<&'a str>,
    signature: &'a str,
}

impl<'a> Authorization<'a> {
    fn parse(text: &'a str) -> Result<Self, Refusal> {
        let incomplete = |what: &str| Refusal::Incomplete(format!("Authorization header requires {what}."));
        let fields = text.strip_prefix(ALGORITHM).ok_or_else(|| incomplete("the algorithm AWS4-HMAC-SHA256"))?;
        let field = |name: &str| {
            let mut pairs = fields.split(',').filter_map(|pair| pair.trim().split_once('='));
            let value = pairs.find_map(|(key, value)| (key == name).then_some(value));
            value.ok_or_else(|| incomplete(&format!("'{name}' parameter")))
        };
        let credential = field("Credential")?;
        let (access_key_id, scope) = credential.split_once('/').ok_or_else(|| incomplete("a credential scope"))?;
        let signed_headers = field("SignedHeaders")?.split(';').collect();
        Ok(Self { access_key_id, scope, signed_headers, signature: field("Signature")? })
    }
}

/// Finds out whose signature a request bears, and whether it is good at `now`.
pub(crate) fn verify<'c>(
    request: &Parts,
    body: &[u8],
    credentials: &'c [EmulatedCredentials],
    region: &str,
    now: OffsetDateTime,
) -> Result<&'c EmulatedCredentials, Refusal> {
    let headers = &request.headers;
    let authorization = text(headers, "authorization").ok_or(Refusal::Unsigned)?;
    let authorization = Authorization::parse(authorization)?;
    let known = credentials.iter().find(|known| known.access_key_id == authorization.access_key_id);
    let known = known.ok_or(Refusal::UnknownKey)?;
    if known.expired {
        return Err(Refusal::Expired);
    }
    if known.session_token.as_deref() != text(headers, SECURITY_TOKEN) {
        return Err(Refusal::WrongToken);
    }
    for name in ["host", DATE, VERSION, SECURITY_TOKEN] {
        if (name == "host" || headers.contains_key(name)) && !authorization.signed_headers.contains(&name) {
            return Err(Refusal::Invalid(format!("'{name}' must be a 'SignedHeader' in the AWS Authorization.")));
        }
    }
    let date = text(headers, DATE).unwrap_or_default();
    check_date(date, now)?;
    let scope = format!("{}/{region}/{SERVICE}/aws4_request", date.get(..8).unwrap_or_default());
    if authorization.scope != scope {
        let got = authorization.scope;
        return Err(Refusal::Invalid(format!("Credential should be scoped to '{scope}', not '{got}'.")));
    }
    let canonical = canonical_request(request, &authorization.signed_headers, body);
    let to_sign = string_to_sign(date, &scope, &canonical);
    let signature = hex::decode(authorization.signature).unwrap_or_default();
    let key = signing_key(&known.secret_access_key, &scope);
    if keyed(&key, &to_sign).verify_slice(&signature).is_err() {
        // The real one echoes all of this, the session token among it. Callers must not pass it on.
        return Err(Refusal::Invalid(format!(
            "The request signature we calculated does not match the signature you provided. Check your AWS Secret \
             Access Key and signing method. Consult the service documentation for details.\n\nThe Canonical String \
             for this request should have been\n'{canonical}'\n\nThe String-to-Sign should have been\n'{to_sign}'\n"
        )));
    }
    Ok(known)
}

fn check_date(date: &str, now: OffsetDateTime) -> Result<(), Refusal> {
    let Some(signed_at) = parse_signature_date(date) else {
        return Err(Refusal::Incomplete("Date must be in ISO-8601 'basic format'.".to_owned()));
    };
    let shown = signature_date(now);
    let message = if signed_at < now - TOLERANCE {
        let limit = signature_date(now - TOLERANCE);
        format!("Signature expired: {date} is now earlier than {limit} ({shown} - 5 min.)")
    } else if signed_at > now + TOLERANCE {
        let limit = signature_date(now + TOLERANCE);
        format!("Signature not yet current: {date} is still later than {limit} ({shown} + 5 min.)")
    } else {
        return Ok(());
    };
    Err(Refusal::Invalid(message))
}

/// The request in the one form that both sides hash.
pub(crate) fn canonical_request(request: &Parts, signed_headers: &[&str], body: &[u8]) -> String {
    let mut names = signed_headers.to_vec();
    names.sort_unstable();
    let headers: Vec<_> = names.iter().map(|name| format!("{name}:{}\n", canonical_value(request, name))).collect();
    let headers = headers.concat();
    let claimed = text(&request.headers, "x-amz-content-sha256");
    let payload = claimed.map_or_else(|| hex::encode(Sha256::digest(body)), str::to_owned);
    let (path, query) = (canonical_path(request.uri.path()), canonical_query(&request.uri));
    format!("{}\n{path}\n{query}\n{headers}\n{}\n{payload}", request.method, names.join(";"))
}

fn canonical_value(request: &Parts, name: &str) -> String {
    let Ok(name) = HeaderName::try_from(name) else { return String::new() };
    let values = request.headers.get_all(name).iter().map(|value| {
        let value = String::from_utf8_lossy(value.as_bytes());
        value.split_ascii_whitespace().collect::<Vec<_>>().join(" ")
    });
    values.collect::<Vec<_>>().join(",")
}

/// Dot segments and empty segments removed, then every segment encoded once more: the path on the wire is encoded
/// already, and only S3 signs it as it is.
fn canonical_path(path: &str) -> String {
    let mut segments: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop()),
            segment => segments.push(segment),
        }
    }
    let mut canonical = String::new();
    for segment in &segments {
        canonical.push('/');
        encode(segment.as_bytes(), &mut canonical);
    }
    if canonical.is_empty() || path.ends_with('/') {
        canonical.push('/');
    }
    canonical
}

fn canonical_query(uri: &Uri) -> String {
    let pairs = uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
    let mut pairs: Vec<_> = pairs
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let mut encoded = (String::new(), String::new());
            encode(&decode(name), &mut encoded.0);
            encode(&decode(value), &mut encoded.1);
            encoded
        })
        .collect();
    pairs.sort_unstable();
    pairs.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&")
}

fn encode(bytes: &[u8], into: &mut String) {
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            into.push(char::from(byte));
        } else {
            let digit = |nibble: u8| char::from(b"0123456789ABCDEF"[usize::from(nibble)]);
            into.extend(['%', digit(byte >> 4), digit(byte & 15)]);
        }
    }
}

/// Percent-decodes; what is no escape stays as it is.
pub(crate) fn decode(text: &str) -> Vec<u8> {
    let mut rest = text.as_bytes();
    let mut decoded = Vec::with_capacity(rest.len());
    while let Some((&first, tail)) = rest.split_first() {
        let escape = (first == b'%').then(|| tail.get(..2).and_then(|digits| hex::decode(digits).ok())).flatten();
        rest = if let Some(byte) = escape {
            decoded.extend(byte);
            &tail[2..]
        } else {
            decoded.push(first);
            tail
        };
    }
    decoded
}

pub(crate) fn string_to_sign(date: &str, scope: &str, canonical: &str) -> String {
    format!("{ALGORITHM}\n{date}\n{scope}\n{}", hex::encode(Sha256::digest(canonical)))
}

/// The secret, narrowed to one date, region and service.
pub(crate) fn signing_key(secret: &str, scope: &str) -> Vec<u8> {
    scope
        .split('/')
        .fold(format!("AWS4{secret}").into_bytes(), |key, part| keyed(&key, part).finalize().into_bytes().to_vec())
}

#[expect(clippy::expect_used, reason = "HMAC takes keys of any length")]
pub(crate) fn keyed(key: &[u8], message: &str) -> Hmac<Sha256> {
    let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(message.as_bytes());
    mac
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

#[cfg(test)]
pub(crate) mod tests;
