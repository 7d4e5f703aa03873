//! Signature Version 4, as Glacier wants it.
//!
//! A pure function of request, credentials, region and time. `aws-sigv4` signs every header it is handed, so it is handed
//! `host` and `x-amz-glacier-version` only and adds `x-amz-date` and, with temporary credentials,
//! `x-amz-security-token`. Proven by published vectors.

use std::time::SystemTime;

use aws_credential_types::Credentials;
use aws_sigv4::{
    http_request::{
        PayloadChecksumKind, PercentEncodingMode, SessionTokenMode, SignableBody, SignableRequest, SignatureLocation,
        SigningSettings, UriPathNormalizationMode, sign,
    },
    sign::v4,
};
use aws_smithy_runtime_api::client::identity::Identity;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::{
    glacier::{
        endpoint::Endpoint,
        request::{self, UnsignedRequest},
    },
    job::JobKey,
};

/// Glacier's name in the credential scope.
const SERVICE: &str = "glacier";

/// The request cannot be signed, because the credentials hold what no header can carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the credentials hold characters that no header can carry")]
pub(super) struct Unsignable;

/// The headers that turn `request` into a signed one, valid for some minutes around `wall`.
pub(super) fn headers(
    request: &UnsignedRequest,
    credentials: &Credentials,
    region: &str,
    wall: SystemTime,
) -> Result<HeaderMap, Unsignable> {
    let identity = Identity::from(credentials.clone());
    let params = v4::SigningParams::builder()
        .identity(&identity)
        .region(region)
        .name(SERVICE)
        .time(wall)
        .settings(settings())
        .build()
        .map_err(|_| Unsignable)?
        .into();
    let signable = SignableRequest::new(
        request.method.as_str(),
        request.url.as_str(),
        request.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())),
        SignableBody::empty(),
    )
    .map_err(|_| Unsignable)?;
    let (instructions, _signature) = sign(signable, &params).map_err(|_| Unsignable)?.into_parts();
    let (added, _query) = instructions.into_parts();
    added
        .into_iter()
        .map(|header| {
            let mut value = HeaderValue::from_str(header.value()).map_err(|_| Unsignable)?;
            // Signature and token alike: whoever prints the request must not print these.
            value.set_sensitive(true);
            Ok((HeaderName::from_static(header.name()), value))
        })
        .collect()
}

/// Every setting that matters here is stated, so a changed default of the crate changes nothing.
fn settings() -> SigningSettings {
    let mut settings = SigningSettings::default();
    settings.percent_encoding_mode = PercentEncodingMode::Double;
    settings.uri_path_normalization_mode = UriPathNormalizationMode::Enabled;
    // Glacier wants no `x-amz-content-sha256` on a GET.
    settings.payload_checksum_kind = PayloadChecksumKind::NoHeader;
    settings.signature_location = SignatureLocation::Headers;
    settings.session_token_mode = SessionTokenMode::Include;
    settings.expires_in = None;
    settings
}

impl crate::fuzzing::Door {
    /// The URL that asks about a job, and all headers of the signed request. `None` if the request cannot be made.
    pub fn sign(
        endpoint: &Endpoint,
        key: &JobKey,
        credentials: &Credentials,
        wall: SystemTime,
    ) -> Option<(String, HeaderMap)> {
        let unsigned = request::describe_job(endpoint, key);
        let mut all = unsigned.header_map()?;
        all.extend(headers(&unsigned, credentials, endpoint.region(), wall).ok()?);
        Some((unsigned.url, all))
    }
}

#[cfg(test)]
mod tests {
    use http::Method;
    use time::{OffsetDateTime, format_description::well_known::Rfc3339};

    use super::*;

    const KEY_ID: &str = "AKIAIOSFODNN7EXAMPLE";
    const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
    const LONG_JOB: &str =
        "HkF9p6o7yjhFx-K3CGl6fuSm6VzW9T7esGQfco8nUXVYwS0jlb5gq1JZ55yHgt5vP54ZShjoQzQVVh7vEXAMPLEjobID";

    fn at(date: &str) -> SystemTime {
        OffsetDateTime::parse(date, &Rfc3339).unwrap().into()
    }

    fn signed(request: &UnsignedRequest, token: Option<&str>, region: &str, date: &str) -> HeaderMap {
        let credentials = Credentials::new(KEY_ID, SECRET, token.map(str::to_owned), None, "test");
        headers(request, &credentials, region, at(date)).unwrap()
    }

    fn oregon(vault: &str, job: &str, token: Option<&str>) -> HeaderMap {
        let endpoint = Endpoint::resolve("us-west-2", false, None).unwrap();
        let request = request::describe_job(&endpoint, &JobKey::parse("-", vault, job).unwrap());
        signed(&request, token, "us-west-2", "2017-02-10T12:00:00Z")
    }

    fn signature(headers: &HeaderMap) -> &str {
        headers["authorization"].to_str().unwrap().split_once("Signature=").unwrap().1
    }

    /// Vector 1, of the Developer Guide: the whole header, not the signature only.
    #[test]
    fn the_developer_guides_example_gives_its_published_signature() {
        let endpoint = Endpoint::resolve("us-east-1", false, None).unwrap();
        let request = request::for_vector(&endpoint, Method::PUT, "/-/vaults/examplevault");
        let headers = signed(&request, None, "us-east-1", "2012-05-25T00:24:53Z");
        assert_eq!(
            headers["authorization"],
            "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20120525/us-east-1/glacier/aws4_request, \
             SignedHeaders=host;x-amz-date;x-amz-glacier-version, \
             Signature=3ce5b2f2fffac9262b4da9256f8d086b4aaf42eba5f111c21681a65a127b7c2a"
        );
        assert_eq!(headers["x-amz-date"], "20120525T002453Z");
    }

    /// Vector 2.
    #[test]
    fn describing_a_job_is_signed_as_botocore_signs_it() {
        let headers = oregon("examplevault", LONG_JOB, None);
        assert_eq!(signature(&headers), "c994eba6078a7bebd9ad6bf2ccf2036835190e782f08c9de46c1932ea9ac3eec");
        let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["authorization", "x-amz-date"], "no x-amz-content-sha256");
    }

    /// Vector 3.
    #[test]
    fn a_session_token_is_sent_and_signed() {
        let headers = oregon("examplevault", LONG_JOB, Some("TOKENEXAMPLE"));
        assert_eq!(signature(&headers), "8789ff9a8af684aae77ed72f544ca7f685d1fc3ed5e3ab69a70d5d0d076a5f27");
        assert_eq!(headers["x-amz-security-token"], "TOKENEXAMPLE");
        let authorization = headers["authorization"].to_str().unwrap();
        assert!(authorization.contains("SignedHeaders=host;x-amz-date;x-amz-glacier-version;x-amz-security-token,"));
    }

    /// Vector 4.
    #[test]
    fn dots_dashes_and_underscores_are_signed_as_they_travel() {
        let headers = oregon("my.vault_1-x", "-abc_DEF", None);
        assert_eq!(signature(&headers), "44b57ad3da3018abccdd218d8d3850f073d61e65f36fd91411860365bec81fbe");
    }

    /// Vector 5.
    #[test]
    fn a_query_is_signed_in_canonical_order() {
        let endpoint = Endpoint::resolve("us-west-2", false, None).unwrap();
        let path = "/-/vaults/examplevault/jobs?limit=2&marker=AB-_c&completed=true";
        let request = request::for_vector(&endpoint, Method::GET, path);
        let headers = signed(&request, None, "us-west-2", "2017-02-10T12:00:00Z");
        assert_eq!(signature(&headers), "b9788c1b39908f9adcc2e3865672c9bc2d1c5a93164cfb80788bd3408ad2ae51");
    }

    #[test]
    fn printing_the_headers_prints_neither_signature_nor_token() {
        let printed = format!("{:?}", oregon("examplevault", LONG_JOB, Some("TOKENEXAMPLE")));
        assert!(!printed.contains("TOKENEXAMPLE") && !printed.contains("8789ff9a"), "{printed}");
    }

    #[test]
    fn a_token_with_a_line_break_is_an_error_not_a_panic() {
        let endpoint = Endpoint::resolve("us-west-2", false, None).unwrap();
        let request = request::for_vector(&endpoint, Method::GET, "/-/vaults/v/jobs/j");
        let credentials = Credentials::new(KEY_ID, SECRET, Some("to\nken".to_owned()), None, "test");
        assert_eq!(headers(&request, &credentials, "us-west-2", at("2017-02-10T12:00:00Z")), Err(Unsignable));
    }
}
