//! Answers that are no descriptions. The input looks like an HTTP answer: a status, header lines, an empty line, a body.

use glacier_gateway::{
    fuzzing::Door,
    job::JobKey,
    upstream::{GlacierMessage, UpstreamError, UpstreamErrorKind as Kind},
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde_json::{Map, Value};

/// Stands for the session token that a message can echo. Begins with what no wording of Glacier's continues with.
const MARK: &str = "~marked-7c1f0e55-never-to-be-repeated";
/// What may be repeated: where the code, the request id and the pause are.
const TELLING_HEADERS: [&str; 4] = ["x-amzn-errortype", "x-amzn-requestid", "x-amz-request-id", "x-amz-retry-after"];
const CODE_MEMBERS: [&str; 2] = ["code", "__type"];

struct Given {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
}

/// Always an error in our own words; code and request id are harmless; what Glacier says is fit for one line of the log; nothing
/// else of the answer's text shows up, be it in the error or in the status that callers get.
pub fn error_answer(input: &[u8]) {
    let given = parse(input);
    let error = interpreted(&given);
    check(&given, &error);

    let marked = marked(&given);
    let same = interpreted(&marked);
    let but_for_its_words = |error: &UpstreamError| UpstreamError { message: None, ..error.clone() };
    assert_eq!(
        but_for_its_words(&error),
        but_for_its_words(&same),
        "what follows in messages and other headers changes nothing"
    );
    if let Some(words) = same.message.as_ref().map(GlacierMessage::for_log) {
        assert!((1..=500).contains(&words.chars().count()) && !words.chars().any(char::is_control), "{words:?}");
    }
    let key = key();
    let status = Door::status(&key, same.clone());
    assert!(!matches!(status.code(), tonic::Code::Ok | tonic::Code::Unauthenticated | tonic::Code::Unknown));
    assert!(status.message().len() <= 1024);
    if let Some(pushback) = status.metadata().get("grpc-retry-pushback-ms") {
        let millis: u64 = pushback.to_str().expect("digits").parse().expect("a number");
        assert!(millis <= 60_000, "no client waits for {millis} ms");
    }
    let details = String::from_utf8_lossy(status.details()).into_owned();
    for printed in [format!("{same:?}"), same.to_string(), format!("{status:?}"), status.to_string(), details] {
        assert!(!printed.contains(MARK), "{printed}");
    }
}

fn key() -> JobKey {
    JobKey::parse("-", "examplevault", "fuzzed-job").expect("a legal key")
}

fn interpreted(given: &Given) -> UpstreamError {
    Door::interpret(given.status, &given.headers, &given.body, &key()).expect_err("no success, so no description")
}

fn check(given: &Given, error: &UpstreamError) {
    let is_token = |text: &str, more: &str| {
        (1..=128).contains(&text.len()) && text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c))
    };
    assert!(error.sent);
    assert_eq!(error.http_status, Some(given.status.as_u16()));
    assert!(error.glacier_code.as_deref().is_none_or(|code| is_token(code, "._-")), "{error:?}");
    assert!(error.request_id.as_deref().is_none_or(|id| is_token(id, "._=+/-")), "{error:?}");
    let status = given.status.as_u16();
    let words = match &error.glacier_code {
        _ if given.status.is_redirection() => "a redirect, which is never followed".to_owned(),
        Some(code) => format!("glacier answered {status} with {code}"),
        None => format!("answer {status} without an error code"),
    };
    assert_eq!(error.detail, words);
    match error.kind {
        Kind::Malformed => assert!(given.status.is_redirection()),
        Kind::InvalidParameter
        | Kind::JobNotFound
        | Kind::VaultNotFound
        | Kind::AccessDenied
        | Kind::CredentialsExpired
        | Kind::ClockSkewed
        | Kind::CredentialsRejected
        | Kind::ClosedToAccount => assert!(error.glacier_code.is_some(), "a bare status never means {:?}", error.kind),
        Kind::Throttled | Kind::Unavailable | Kind::Unexpected => {}
        other => panic!("no answer means {other:?}"),
    }
}

/// The same answer with the mark wherever there is text that may not be repeated.
fn marked(given: &Given) -> Given {
    let mut headers = given.headers.clone();
    for (name, value) in &mut headers {
        if !TELLING_HEADERS.contains(&name.as_str()) {
            *value = [value.as_bytes(), MARK.as_bytes()].concat().try_into().expect("a legal value");
        }
    }
    let body = match serde_json::from_slice::<Map<String, Value>>(&given.body) {
        Ok(mut members) => {
            let others = members.iter_mut().filter(|(name, _)| !CODE_MEMBERS.contains(&name.as_str()));
            others.for_each(|(_, value)| mark(value));
            serde_json::to_vec(&members).expect("it was JSON")
        }
        Err(_) => [&given.body, MARK.as_bytes()].concat(),
    };
    Given { status: given.status, headers, body }
}

fn mark(value: &mut Value) {
    match value {
        Value::String(text) => text.push_str(MARK),
        Value::Array(elements) => elements.iter_mut().for_each(mark),
        Value::Object(members) => members.values_mut().for_each(mark),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Whatever is not legal is left out, so that every input is an answer.
fn parse(input: &[u8]) -> Given {
    let mut rest = input;
    let status = str::from_utf8(line(&mut rest)).ok().and_then(|text| text.trim().parse().ok());
    let status = status.and_then(|code| StatusCode::from_u16(code).ok()).filter(|status| !status.is_success());
    let mut headers = HeaderMap::new();
    while !rest.is_empty() && headers.len() < 100 {
        let header = line(&mut rest);
        if header.is_empty() {
            break;
        }
        let Some(colon) = header.iter().position(|byte| *byte == b':') else { continue };
        let (name, value) = (&header[..colon], header[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
            headers.append(name, value);
        }
    }
    Given { status: status.unwrap_or(StatusCode::BAD_REQUEST), headers, body: rest.to_owned() }
}

/// Takes a line off the front.
fn line<'a>(rest: &mut &'a [u8]) -> &'a [u8] {
    let end = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
    let line = &rest[..end];
    *rest = rest.get(end + 1..).unwrap_or_default();
    line.strip_suffix(b"\r").unwrap_or(line)
}
