//! The verifier against published vectors, and the signer of the other tests.

use std::slice;

use super::*;
use http::Request;

/// What a test signs with.
pub(crate) struct Signer<'a> {
    pub(crate) credentials: &'a EmulatedCredentials,
    pub(crate) region: &'a str,
    /// As in `x-amz-date`.
    pub(crate) date: &'a str,
}

impl Signer<'_> {
    /// Adds the version, the date, the token and a signature over them and the host.
    pub(crate) fn sign(&self, request: http::request::Builder) -> Parts {
        let mut request = request.header(DATE, self.date).header(VERSION, "2012-06-01");
        let mut names = vec!["host", DATE, VERSION];
        if let Some(token) = &self.credentials.session_token {
            request = request.header(SECURITY_TOKEN, token);
            names.push(SECURITY_TOKEN);
        }
        names.sort_unstable();
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        let scope = format!("{}/{}/glacier/aws4_request", &self.date[..8], self.region);
        let canonical = canonical_request(&parts, &names, b"");
        let key = signing_key(&self.credentials.secret_access_key, &scope);
        let mac = keyed(&key, &string_to_sign(self.date, &scope, &canonical));
        let signature = hex::encode(mac.finalize().into_bytes());
        let key_id = &self.credentials.access_key_id;
        let names = names.join(";");
        let value = format!("{ALGORITHM} Credential={key_id}/{scope}, SignedHeaders={names}, Signature={signature}");
        parts.headers.insert("authorization", value.parse().unwrap());
        parts
    }
}

const DAY: &str = "20170210T120000Z";
const PLAIN: &str = "/-/vaults/examplevault/jobs/HkF9p6o7yjhFx-K3CGl6fuSm6VzW9T7esGQfco8nUXVYwS0jlb5gq1JZ55yHgt5vP54ZShjoQzQVVh7vEXAMPLEjobID";

fn noon() -> OffsetDateTime {
    parse_signature_date(DAY).unwrap()
}

fn known(token: Option<&str>) -> EmulatedCredentials {
    EmulatedCredentials { session_token: token.map(str::to_owned), ..EmulatedCredentials::default() }
}

fn signed(method: &str, path: &str, region: &str, date: &str, token: Option<&str>) -> Parts {
    let credentials = known(token);
    let host = format!("glacier.{region}.amazonaws.com");
    let request = Request::builder().method(method).uri(path).header("host", host);
    Signer { credentials: &credentials, region, date }.sign(request)
}

fn plain() -> Parts {
    signed("GET", PLAIN, "us-west-2", DAY, None)
}

/// Replaces the signature that our own signer made by the published one, so nothing here is checked against itself.
fn verified(mut request: Parts, region: &str, published: &str, token: Option<&str>) -> Result<(), Refusal> {
    let value = text(&request.headers, "authorization").unwrap();
    let (head, _) = value.rsplit_once('=').unwrap();
    let value = format!("{head}={published}").parse().unwrap();
    request.headers.insert("authorization", value);
    let known = known(token);
    let date = parse_signature_date(text(&request.headers, DATE).unwrap()).unwrap();
    verify(&request, b"", &[known], region, date).map(|_| ())
}

#[test]
fn the_published_signatures_are_good() {
    let west = "us-west-2";
    let short = "/-/vaults/my.vault_1-x/jobs/-abc_DEF";
    let list = "/-/vaults/examplevault/jobs?limit=2&marker=AB-_c&completed=true";
    let token = Some("TOKENEXAMPLE");
    let vectors = [
        ("GET", PLAIN, west, None, "c994eba6078a7bebd9ad6bf2ccf2036835190e782f08c9de46c1932ea9ac3eec"),
        ("GET", PLAIN, west, token, "8789ff9a8af684aae77ed72f544ca7f685d1fc3ed5e3ab69a70d5d0d076a5f27"),
        ("GET", short, west, None, "44b57ad3da3018abccdd218d8d3850f073d61e65f36fd91411860365bec81fbe"),
        ("GET", list, west, None, "b9788c1b39908f9adcc2e3865672c9bc2d1c5a93164cfb80788bd3408ad2ae51"),
    ];
    for (method, path, region, token, signature) in vectors {
        assert_eq!(verified(signed(method, path, region, DAY, token), region, signature, token), Ok(()), "{path}");
    }
    let guide = signed("PUT", "/-/vaults/examplevault", "us-east-1", "20120525T002453Z", None);
    let signature = "3ce5b2f2fffac9262b4da9256f8d086b4aaf42eba5f111c21681a65a127b7c2a";
    assert_eq!(verified(guide, "us-east-1", signature, None), Ok(()));
}

fn refusal(request: &Parts, known: &EmulatedCredentials, now: OffsetDateTime) -> Refusal {
    verify(request, b"", slice::from_ref(known), "us-west-2", now).unwrap_err()
}

#[test]
fn whatever_is_changed_after_signing_is_noticed() {
    let known = EmulatedCredentials::default();
    let changes: [fn(&mut Parts); 5] = [
        |request| request.uri = "/-/vaults/othervault/jobs/x".parse().unwrap(),
        |request| request.uri = format!("{PLAIN}?limit=1").parse().unwrap(),
        |request| request.method = http::Method::HEAD,
        |request| drop(request.headers.insert("host", "elsewhere".parse().unwrap())),
        |request| drop(request.headers.insert(VERSION, "2012-06-02".parse().unwrap())),
    ];
    for (at, change) in changes.iter().enumerate() {
        let mut request = plain();
        change(&mut request);
        let Refusal::Invalid(message) = refusal(&request, &known, noon()) else { panic!("change {at}") };
        assert!(message.contains("does not match"), "{at}: {message}");
    }
    assert!(verify(&plain(), b"", slice::from_ref(&known), "us-west-2", noon()).is_ok());
    assert!(verify(&plain(), b"a body", &[known], "us-west-2", noon()).is_err());
}

#[test]
fn a_wrong_secret_echoes_the_session_token_as_the_real_one_does() {
    let request = signed("GET", PLAIN, "us-west-2", DAY, Some("SECRET-TOKEN"));
    let known = EmulatedCredentials::new("AKIAIOSFODNN7EXAMPLE", "another").with_session_token("SECRET-TOKEN");
    let Refusal::Invalid(message) = refusal(&request, &known, noon()) else { panic!("not a signature error") };
    assert!(message.contains("x-amz-security-token:SECRET-TOKEN"), "{message}");
}

#[test]
fn five_minutes_are_tolerated_and_not_a_second_more() {
    let known = EmulatedCredentials::default();
    for minutes in [-5, 5] {
        assert!(
            verify(&plain(), b"", slice::from_ref(&known), "us-west-2", noon() + time::Duration::minutes(minutes))
                .is_ok()
        );
    }
    let late = refusal(&plain(), &known, noon() + time::Duration::seconds(301));
    let expired =
        "Signature expired: 20170210T120000Z is now earlier than 20170210T120001Z (20170210T120501Z - 5 min.)";
    assert_eq!(late, Refusal::Invalid(expired.to_owned()));
    let Refusal::Invalid(early) = refusal(&plain(), &known, noon() - time::Duration::seconds(301)) else { panic!() };
    assert!(early.starts_with("Signature not yet current: 20170210T120000Z is still later than "), "{early}");
}

#[test]
fn keys_tokens_and_scopes_are_checked() {
    let known = EmulatedCredentials::default();
    assert_eq!(refusal(&plain(), &EmulatedCredentials::new("AKIAOTHER", "x"), noon()), Refusal::UnknownKey);
    assert_eq!(refusal(&plain(), &known.clone().expired(), noon()), Refusal::Expired);
    assert_eq!(refusal(&plain(), &known.clone().with_session_token("t"), noon()), Refusal::WrongToken);
    let tokened = signed("GET", PLAIN, "us-west-2", DAY, Some("t"));
    assert_eq!(refusal(&tokened, &known, noon()), Refusal::WrongToken);
    let elsewhere = signed("GET", PLAIN, "eu-west-1", DAY, None);
    assert!(matches!(refusal(&elsewhere, &known, noon()), Refusal::Invalid(message) if message.contains("scoped")));
    let mut bare = plain();
    bare.headers.remove("authorization");
    assert_eq!(refusal(&bare, &known, noon()), Refusal::Unsigned);
    for text in ["Basic eA==", "AWS4-HMAC-SHA256", "AWS4-HMAC-SHA256 Credential=x, SignedHeaders=host, Signature=0"] {
        bare.headers.insert("authorization", text.parse().unwrap());
        assert!(matches!(refusal(&bare, &known, noon()), Refusal::Incomplete(_)), "{text}");
    }
}

#[test]
fn a_header_that_matters_must_be_signed() {
    for name in ["host", DATE, VERSION] {
        let mut request = plain();
        let value = text(&request.headers, "authorization").unwrap();
        let fewer = value.replacen(&format!("{name};"), "", 1).replacen(&format!(";{name},"), ",", 1);
        assert_ne!(fewer, value);
        request.headers.insert("authorization", fewer.parse().unwrap());
        let Refusal::Invalid(message) = refusal(&request, &EmulatedCredentials::default(), noon()) else { panic!() };
        assert_eq!(message, format!("'{name}' must be a 'SignedHeader' in the AWS Authorization."));
    }
}

#[test]
fn canonical_forms_are_those_of_the_specification() {
    assert_eq!(canonical_path("/a/./b/../c%20d/"), "/a/c%2520d/");
    assert_eq!(canonical_path("/"), "/");
    assert_eq!(canonical_query(&"/?b=2&a=%2f&a&c=x y".replace(' ', "%20").parse().unwrap()), "a=&a=%2F&b=2&c=x%20y");
}
