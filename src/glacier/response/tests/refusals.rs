//! Answers as Glacier should never give them.

use proptest::prelude::*;
use serde_json::json;

use super::*;

/// U18
#[test]
fn a_redirect_is_no_answer_whatever_it_carries() {
    for status in [300, 301, 302, 303, 304, 307, 308] {
        assert_eq!(kind(status, &archive_job().to_string()), Some(Kind::Malformed), "{status}");
    }
}

/// U15, U16
#[test]
fn what_is_not_a_description_is_malformed() {
    let deep = "[".repeat(100_000);
    let deep_member = format!("{{\"JobId\":{}1{}}}", "[".repeat(5000), "]".repeat(5000));
    for body in [
        "",
        " ",
        "null",
        "true",
        "1",
        "\"JobId\"",
        "[]",
        "{}",
        "{\"message\":\"x\"}",
        "{\"jobid\":\"x\"}",
        "{\"JobId\":null}",
        "<html>Welcome</html>",
        "{\"JobId\":",
        "{'JobId':1}",
        "{\"JobId\":1e999}",
        "{\"JobId\":\"a\"} trailing",
        "{\"JobId\":\"\\ud800\"}",
        &deep,
        &deep_member,
    ] {
        let shown: String = body.chars().take(40).collect();
        assert_eq!(kind(200, body), Some(Kind::Malformed), "{shown}");
    }
    assert_eq!(read(200, b"{\"JobId\":\"\xff\"}").unwrap_err().kind, Kind::Malformed);
}

/// U15
#[test]
fn of_duplicate_members_the_last_counts_and_nul_is_a_character() {
    let body = format!(
        "{{\"JobId\":\"other\",\"JobId\":{JOB:?},\"Tier\":\"Bulk\",\"Tier\":null,\"StatusMessage\":\"a\\u0000b\"}}"
    );
    let job = read(200, body.as_bytes()).unwrap();
    assert_eq!((job.job_id, job.tier, job.status_message), (some(JOB), 0, some("a\0b")));
}

/// U26
#[test]
fn a_description_that_does_not_name_the_job_or_names_another_vault_is_refused() {
    for (member, value, expected) in [
        ("JobId", json!("another"), Some(Kind::WrongJob)),
        ("JobId", json!(""), Some(Kind::WrongJob)),
        ("JobId", Value::Null, Some(Kind::WrongJob)),
        ("JobId", json!(7), Some(Kind::WrongJob)),
        ("VaultARN", json!("arn:aws:glacier:eu-west-1:210987654321:vaults/other"), Some(Kind::WrongJob)),
        ("VaultARN", json!("arn:aws:glacier:eu-west-1:210987654321:vaults/"), Some(Kind::WrongJob)),
        ("VaultARN", json!("arn:aws:s3:eu-west-1:210987654321:vaults/photos.2011"), Some(Kind::WrongJob)),
        ("VaultARN", json!("urn:aws:glacier:eu-west-1:210987654321:vaults/photos.2011"), Some(Kind::WrongJob)),
        ("VaultARN", json!("arn:aws:glacier:eu-west-1::vaults/photos.2011"), Some(Kind::WrongJob)),
        ("VaultARN", json!("photos.2011"), Some(Kind::WrongJob)),
        ("VaultARN", json!("arn:aws-cn:glacier:cn-north-1:1234:vaults/photos.2011"), None),
        ("VaultARN", Value::Null, None),
        ("VaultARN", json!(["arn"]), None),
    ] {
        let mut document = archive_job();
        document[member] = value.clone();
        assert_eq!(kind(200, &document.to_string()), expected, "{member} {value}");
    }
    assert_eq!(kind(200, r#"{"Tier":"x"}"#), Some(Kind::WrongJob), "of any job");
}

/// U26
#[test]
fn a_description_of_another_account_is_refused_and_leading_zeros_are_none() {
    for (asked, named, expected) in [
        ("111111111111", "999999999999", Some(Kind::WrongJob)),
        ("111111111111", "11111111111", Some(Kind::WrongJob)),
        ("012345678901", "012345678901", None),
        ("012345678901", "12345678901", None),
        // Compared where it is known which account that is.
        ("-", "999999999999", None),
    ] {
        let mut document = archive_job();
        document["VaultARN"] = json!(format!("arn:aws:glacier:eu-west-1:{named}:vaults/{VAULT}"));
        let (headers, body) = (HeaderMap::new(), document.to_string());
        let answer = Answer { status: StatusCode::OK, headers: &headers, body: body.as_bytes() };
        let read = interpret(&answer, &JobKey::parse(asked, VAULT, JOB).unwrap());
        assert_eq!(read.err().map(|failure| failure.error.kind), expected, "{asked} {named}");
    }
}

#[test]
fn a_failure_names_the_request_but_repeats_nothing_of_the_answer() {
    let headers = HeaderMap::from_iter([("x-amzn-requestid".parse().unwrap(), "Rq-1_".parse().unwrap())]);
    let answer = Answer { status: StatusCode::OK, headers: &headers, body: b"marked <html>" };
    let Failure { error, .. } = interpret(&answer, &key()).unwrap_err();
    assert_eq!((error.http_status, error.request_id.as_deref(), error.sent), (Some(200), Some("Rq-1_"), true));
    assert!(!format!("{error:?}").contains("marked"));
}

/// U13
#[test]
fn a_body_cut_at_any_byte_is_malformed() {
    let body = select_job().to_string();
    for end in 0..body.len() {
        assert_eq!(read(200, &body.as_bytes()[..end]).unwrap_err().kind, Kind::Malformed, "cut at {end}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// U13
    #[test]
    fn no_mutation_of_a_body_makes_it_panic_or_answer_for_another_job(
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut body = select_job().to_string().into_bytes();
        for (index, byte) in edits {
            let at = index.index(body.len());
            body[at] = byte;
        }
        if let Ok(job) = read(200, &body) {
            prop_assert!(job.job_id.is_none_or(|id| id == JOB));
        }
    }
}
