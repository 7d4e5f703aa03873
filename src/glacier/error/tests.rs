//! Glacier's errors as it sends them, and as middleboxes do.

use http::{HeaderName, HeaderValue};
use proptest::prelude::*;
use serde_json::json;

use super::*;

fn classify_raw(status: u16, headers: &[(&'static str, &str)], body: &[u8]) -> UpstreamError {
    let headers: HeaderMap = headers
        .iter()
        .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()))
        .collect();
    classify(&Answer { status: StatusCode::from_u16(status).unwrap(), headers: &headers, body })
}

fn classify_body(status: u16, code: &str, message: &str) -> UpstreamError {
    let body = json!({"message": message, "code": code, "type": "Client"}).to_string();
    classify_raw(status, &[], body.as_bytes())
}

#[test]
fn the_code_decides_whatever_the_status() {
    for (code, status, kind) in [
        ("InvalidParameterValueException", 400, Kind::InvalidParameter),
        ("MissingParameterValueException", 400, Kind::InvalidParameter),
        ("BadRequest", 400, Kind::InvalidParameter),
        ("ThrottlingException", 400, Kind::Throttled),
        ("Throttling", 400, Kind::Throttled),
        ("ThrottledException", 400, Kind::Throttled),
        ("TooManyRequestsException", 429, Kind::Throttled),
        ("RequestLimitExceeded", 503, Kind::Throttled),
        ("ServiceUnavailableException", 500, Kind::Unavailable),
        ("RequestTimeoutException", 408, Kind::Unavailable),
        ("InsufficientCapacityException", 400, Kind::Unavailable),
        ("InsufficientCapacityException", 503, Kind::Unavailable),
        ("InternalFailure", 500, Kind::Unavailable),
        ("InternalServerException", 500, Kind::Unavailable),
        ("InternalServerError", 400, Kind::Unavailable),
        ("InternalError", 500, Kind::Unavailable),
        ("AccessDeniedException", 403, Kind::AccessDenied),
        ("AccessDenied", 403, Kind::AccessDenied),
        ("ExpiredTokenException", 403, Kind::CredentialsExpired),
        ("ExpiredToken", 400, Kind::CredentialsExpired),
        ("InvalidSignatureException", 403, Kind::CredentialsRejected),
        ("InvalidSignatureException", 400, Kind::CredentialsRejected),
        ("SignatureDoesNotMatch", 403, Kind::CredentialsRejected),
        ("RequestExpired", 400, Kind::ClockSkewed),
        ("RequestTimeTooSkewed", 403, Kind::ClockSkewed),
        ("UnrecognizedClientException", 400, Kind::CredentialsRejected),
        ("UnrecognizedClientException", 403, Kind::CredentialsRejected),
        ("MissingAuthenticationTokenException", 403, Kind::CredentialsRejected),
        ("MissingAuthenticationToken", 403, Kind::CredentialsRejected),
        ("InvalidClientTokenId", 403, Kind::CredentialsRejected),
        ("IncompleteSignatureException", 400, Kind::CredentialsRejected),
        ("IncompleteSignature", 403, Kind::CredentialsRejected),
        ("NoLongerSupportedException", 400, Kind::ClosedToAccount),
        ("OptInRequired", 403, Kind::ClosedToAccount),
        ("OptInRequiredException", 403, Kind::ClosedToAccount),
        ("SubscriptionRequiredException", 403, Kind::ClosedToAccount),
        ("SubscriptionRequired", 400, Kind::ClosedToAccount),
        ("NotAuthorized", 400, Kind::AccessDenied),
        ("UnauthorizedOperation", 403, Kind::AccessDenied),
        ("UnauthorizedAccess", 403, Kind::AccessDenied),
        ("AuthorizationErrorException", 403, Kind::AccessDenied),
        ("ValidationException", 400, Kind::InvalidParameter),
        ("ValidationError", 400, Kind::InvalidParameter),
        ("RequestAbortedException", 400, Kind::Unavailable),
        ("RequestThrottledException", 400, Kind::Throttled),
        ("EC2ThrottledException", 400, Kind::Throttled),
        ("BandwidthLimitExceeded", 400, Kind::Throttled),
        ("ProvisionedThroughputExceededException", 400, Kind::Throttled),
        ("PriorRequestNotComplete", 400, Kind::Throttled),
        ("TransactionInProgressException", 400, Kind::Throttled),
        ("SlowDown", 503, Kind::Throttled),
        ("TokenRefreshRequired", 400, Kind::CredentialsExpired),
        ("InvalidAccessKeyId", 403, Kind::CredentialsRejected),
        ("InvalidToken", 400, Kind::CredentialsRejected),
        ("AuthFailure", 401, Kind::CredentialsRejected),
        ("PolicyEnforcedException", 400, Kind::Unexpected),
        ("LimitExceededException", 400, Kind::Unexpected),
        ("SerializationException", 400, Kind::Unexpected),
        ("ResourceNotFoundException", 404, Kind::JobNotFound),
    ] {
        // The status it comes with, and one for each thing that a status alone can mean.
        for status in [status, 400, 429, 503] {
            let error = classify_body(status, code, "whatever");
            assert_eq!((error.kind, error.http_status), (kind, Some(status)), "{code}");
            assert_eq!(error.glacier_code.as_deref(), Some(code));
            assert!(error.sent);
        }
    }
}

#[test]
fn a_code_that_nobody_knows_and_no_code_at_all_leave_it_to_the_status() {
    for (status, kind) in [
        (500, Kind::Unavailable),
        (502, Kind::Unavailable),
        (503, Kind::Unavailable),
        (504, Kind::Unavailable),
        (408, Kind::Unavailable),
        (429, Kind::Throttled),
        (400, Kind::Unexpected),
        (403, Kind::Unexpected),
        (404, Kind::Unexpected),
        (418, Kind::Unexpected),
        (999, Kind::Unexpected),
    ] {
        assert_eq!(classify_body(status, "BrandNewException", "").kind, kind, "{status}");
        for body in [&b""[..], b"<html>Bad Gateway</html>", b"<Error><Code>ThrottlingException</Code></Error>", b"[1]"]
        {
            let error = classify_raw(status, &[], body);
            assert_eq!((error.kind, error.glacier_code), (kind, None), "{status}");
        }
    }
}

#[test]
fn a_missing_job_and_a_missing_vault_differ_in_the_message_only() {
    let kind = |message: &str| classify_body(404, "ResourceNotFoundException", message).kind;
    assert_eq!(kind("The job ID was not found: HkF9p6o7"), Kind::JobNotFound);
    assert_eq!(kind("Vault not found for ARN: arn:aws:glacier:us-east-1:1:vaults/v"), Kind::VaultNotFound);
    assert_eq!(kind("something else"), Kind::JobNotFound);
    for member in MESSAGE_MEMBERS {
        let body = json!({"code": "ResourceNotFoundException", member: "Vault not found for ARN: x"}).to_string();
        assert_eq!(classify_raw(404, &[], body.as_bytes()).kind, Kind::VaultNotFound, "{member}");
    }
}

#[test]
fn a_signature_refused_for_its_date_is_a_matter_of_clocks() {
    for code in ["InvalidSignatureException", "SignatureDoesNotMatch"] {
        for message in [
            "Signature expired: 20170210T120000Z is now earlier than 20170210T121000Z",
            "Signature not yet current: 20170210T123000Z is still later than 20170210T122000Z",
        ] {
            assert_eq!(classify_body(403, code, message).kind, Kind::ClockSkewed, "{code}");
        }
        let message = "The request signature we calculated does not match the signature you provided.";
        assert_eq!(classify_body(403, code, message).kind, Kind::CredentialsRejected, "{code}");
    }
}

#[test]
fn the_header_comes_before_the_body_and_code_before_type() {
    let body = br#"{"code":"AccessDeniedException","__type":"ThrottlingException"}"#;
    let header = [("x-amzn-errortype", "ServiceUnavailableException:http://internal.amazon.com/coral#x/")];
    assert_eq!(classify_raw(400, &header, body).kind, Kind::Unavailable);
    assert_eq!(classify_raw(400, &[], body).kind, Kind::AccessDenied);
    assert_eq!(classify_raw(400, &[("x-amzn-errortype", "")], body).kind, Kind::AccessDenied);
    let body = br#"{"code":42,"__type":"com.amazonaws.glacier#ThrottlingException"}"#;
    let error = classify_raw(400, &[], body);
    assert_eq!((error.kind, error.glacier_code.as_deref()), (Kind::Throttled, Some("ThrottlingException")));
}

#[test]
fn what_glacier_says_is_kept_for_the_log() {
    for (status, code, message) in [
        (
            400,
            "InvalidParameterValueException",
            "Invalid vault name: arn:aws:glacier:us-east-1:012345678901:vaults/photos",
        ),
        (
            403,
            "AccessDeniedException",
            "User: arn:aws:sts::1:assumed-role/r is not authorized to perform: \
            glacier:DescribeJob with an explicit deny in a service control policy",
        ),
        (404, "ResourceNotFoundException", "Vault not found for ARN: arn:aws:glacier:us-east-1:1:vaults/v"),
        (400, "ThrottlingException", "Rate exceeded"),
        (403, "OptInRequired", "The AWS Access Id needs a subscription for the service"),
        (400, "BrandNewException", "something new"),
        (403, "", "Forbidden"),
    ] {
        let kept = classify_body(status, code, message).message.map(|kept| kept.for_log().to_owned());
        assert_eq!(kept.as_deref(), Some(message), "{code}");
    }
    assert_eq!(classify_body(400, "ThrottlingException", "").message, None);
    assert_eq!(classify_raw(502, &[], b"<html>Bad Gateway</html>").message, None);
}

/// P8
#[test]
fn nothing_is_kept_of_a_message_that_may_hold_a_secret() {
    for code in [
        "InvalidSignatureException",
        "SignatureDoesNotMatch",
        "ExpiredTokenException",
        "UnrecognizedClientException",
        "MissingAuthenticationTokenException",
        "IncompleteSignatureException",
        "InvalidClientTokenId",
        "RequestExpired",
        "TokenRefreshRequired",
        "InvalidToken",
        "AuthFailure",
    ] {
        assert_eq!(classify_body(403, code, "marked").message, None, "{code}");
    }
    for message in [
        "The Canonical String for this request should have been 'GET x-amz-security-token:marked-token'",
        "The String-to-Sign should have been 'AWS4-HMAC-SHA256 marked'",
        "Authorization header requires 'Credential' parameter. Authorization=marked",
        "Header X-Amz-Security-Token is too long: marked",
    ] {
        for code in ["InvalidSignatureException", "AccessDeniedException", "BrandNewException", "InternalFailure", ""] {
            let error = classify_body(403, code, message);
            assert_eq!(error.message, None, "{code}: {message}");
            assert!(!format!("{error:?} {error}").contains("marked"), "{error:?}");
        }
    }
}

#[test]
fn a_code_or_request_id_that_is_not_one_is_dropped() {
    let long = "A".repeat(129);
    for code in ["", "a b", "<script>", "ä", "tok\u{0}en", long.as_str()] {
        assert_eq!(classify_body(400, code, "").glacier_code, None, "{code}");
    }
    let id_of = |name, value: &str| classify_raw(400, &[(name, value)], b"").request_id;
    assert_eq!(id_of("x-amzn-requestid", ""), None);
    assert_eq!(id_of("x-amzn-requestid", "a b"), None);
    assert_eq!(id_of("x-amzn-requestid", &long), None);
    assert_eq!(id_of("x-amzn-requestid", "AbC-1.2=+/"), Some("AbC-1.2=+/".to_owned()));
    assert_eq!(id_of("x-amz-request-id", "XYZ"), Some("XYZ".to_owned()));
}

#[test]
fn glaciers_wish_to_be_left_alone_is_read_in_milliseconds() {
    let wish = |value: &str| classify_raw(503, &[("x-amz-retry-after", value)], b"").retry_after;
    assert_eq!(wish("1500"), Some(Duration::from_millis(1500)));
    for ages in ["60001", "18446744073709551615"] {
        assert_eq!(wish(ages), Some(Duration::from_mins(1)));
    }
    for value in ["", "-1", "1.5", "soon", "99999999999999999999999"] {
        assert_eq!(wish(value), None, "{value}");
    }
}

proptest! {
    #[test]
    fn no_body_makes_it_panic(status in 400u16..600, body in prop::collection::vec(any::<u8>(), 0..200)) {
        classify_raw(status, &[], &body);
    }
}
