//! Descriptions as Glacier gives them.

mod refusals;

use std::collections::HashMap;

use prost_types::Timestamp;
use serde_json::json;

use super::*;
use crate::proto::v1::{
    Action, CsvInput, CsvOutput, Encryption, Grant, Grantee, InputSerialization, InventoryRetrievalJobDescription,
    OutputLocation, OutputSerialization, S3Location, SelectParameters, StatusCode as JobStatus, Tier,
};
use crate::upstream::UpstreamError;

const VAULT: &str = "photos.2011";
const JOB: &str = "-qLm7_wV3";
const ARN: &str = "arn:aws:glacier:eu-west-1:210987654321:vaults/photos.2011";

fn key() -> JobKey {
    JobKey::parse("-", VAULT, JOB).unwrap()
}

fn read(status: u16, body: &[u8]) -> Result<GlacierJobDescription, UpstreamError> {
    let headers = HeaderMap::new();
    interpret(&Answer { status: StatusCode::from_u16(status).unwrap(), headers: &headers, body }, &key())
        .map_err(|failure| failure.error)
}

fn read_json(body: &Value) -> GlacierJobDescription {
    read(200, body.to_string().as_bytes()).unwrap()
}

fn kind(status: u16, body: &str) -> Option<Kind> {
    read(status, body.as_bytes()).err().map(|e| e.kind)
}

#[expect(clippy::unnecessary_wraps, reason = "the fields that it fills are optional")]
fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

fn archive_job() -> Value {
    json!({
        "Action": "ArchiveRetrieval", "ArchiveId": "arc-1", "ArchiveSHA256TreeHash": "0a1b", "ArchiveSizeInBytes": 8_388_608,
        "Completed": false, "CompletionDate": null, "CreationDate": "2019-07-04T05:06:07.089Z",
        "InventoryRetrievalParameters": null, "InventorySizeInBytes": null, "JobDescription": null, "JobId": JOB,
        "JobOutputPath": null, "OutputLocation": null, "RetrievalByteRange": "0-8388607", "SHA256TreeHash": "0a1b",
        "SNSTopic": null, "SelectParameters": null, "StatusCode": "InProgress", "StatusMessage": null,
        "Tier": "Expedited", "VaultARN": ARN
    })
}

fn select_job() -> Value {
    json!({
        "Action": "Select", "ArchiveId": "arc-2", "Completed": true, "CompletionDate": "2019-07-04T06:00:00.000Z",
        "CreationDate": "2019-07-04T05:06:07.089Z", "JobDescription": "q", "JobId": JOB, "JobOutputPath": "out/1",
        "OutputLocation": {"S3": {
            "BucketName": "b", "Prefix": "p", "CannedACL": "private", "StorageClass": "STANDARD",
            "Encryption": {"EncryptionType": "aws:kms", "KMSKeyId": "k", "KMSContext": "c"},
            "AccessControlList": [
                {"Grantee": {"Type": "Group", "DisplayName": "d", "URI": "u", "ID": "i", "EmailAddress": "e"},
                 "Permission": "READ"},
                {"Grantee": null, "Permission": "WRITE"}],
            "Tagging": {"team": "archive"}, "UserMetadata": {"m": "n"}}},
        "SelectParameters": {
            "InputSerialization": {"csv": {"Comments": "#", "FieldDelimiter": ",", "FileHeaderInfo": "USE",
                "QuoteCharacter": "\"", "QuoteEscapeCharacter": "\\", "RecordDelimiter": "\n"}},
            "ExpressionType": "SQL", "Expression": "SELECT 1",
            "OutputSerialization": {"csv": {"FieldDelimiter": ";", "QuoteCharacter": "'", "QuoteEscapeCharacter": "^",
                "QuoteFields": "ALWAYS", "RecordDelimiter": "\r\n"}}},
        "StatusCode": "Succeeded", "StatusMessage": "Succeeded", "Tier": "Bulk", "VaultARN": ARN
    })
}

#[test]
fn an_archive_job_in_progress_is_read_member_by_member() {
    let expected = GlacierJobDescription {
        action: Action::ArchiveRetrieval.into(),
        archive_id: some("arc-1"),
        archive_sha256_tree_hash: some("0a1b"),
        archive_size_in_bytes: Some(8_388_608),
        completed: Some(false),
        creation_date: Some(Timestamp { seconds: 1_562_216_767, nanos: 89_000_000 }),
        job_id: some(JOB),
        retrieval_byte_range: some("0-8388607"),
        sha256_tree_hash: some("0a1b"),
        status_code: JobStatus::InProgress.into(),
        tier: Tier::Expedited.into(),
        vault_arn: some(ARN),
        ..GlacierJobDescription::default()
    };
    assert_eq!(read_json(&archive_job()), expected);
}

#[test]
fn a_completed_inventory_job_is_read_member_by_member() {
    let job = read_json(&json!({
        "Action": "InventoryRetrieval", "ArchiveId": null, "Completed": true, "CompletionDate": "2019-07-04T09:00:00.5Z",
        "CreationDate": "2019-07-04T05:06:07.089Z", "InventorySizeInBytes": 0,
        "InventoryRetrievalParameters": {"EndDate": "2019-01-01T00:00:00Z", "Format": "JSON", "Limit": "500",
            "Marker": null, "StartDate": "2018-01-01T00:00:00Z"},
        "JobDescription": "weekly", "JobId": JOB, "SNSTopic": "arn:aws:sns:eu-west-1:210987654321:t",
        "StatusCode": "Failed", "StatusMessage": "no such thing", "Tier": null, "VaultARN": ARN
    }));
    let expected = GlacierJobDescription {
        action: Action::InventoryRetrieval.into(),
        completed: Some(true),
        completion_date: Some(Timestamp { seconds: 1_562_230_800, nanos: 500_000_000 }),
        creation_date: Some(Timestamp { seconds: 1_562_216_767, nanos: 89_000_000 }),
        inventory_retrieval_parameters: Some(InventoryRetrievalJobDescription {
            end_date: Some(Timestamp { seconds: 1_546_300_800, nanos: 0 }),
            format: some("JSON"),
            limit: some("500"),
            marker: None,
            start_date: Some(Timestamp { seconds: 1_514_764_800, nanos: 0 }),
        }),
        inventory_size_in_bytes: Some(0),
        job_description: some("weekly"),
        job_id: some(JOB),
        sns_topic: some("arn:aws:sns:eu-west-1:210987654321:t"),
        status_code: JobStatus::Failed.into(),
        status_message: some("no such thing"),
        vault_arn: some(ARN),
        ..GlacierJobDescription::default()
    };
    assert_eq!(job, expected);
}

#[test]
fn a_select_job_is_read_down_to_the_last_nested_member() {
    let job = read_json(&select_job());
    assert_eq!((job.action(), job.status_code(), job.tier()), (Action::Select, JobStatus::Succeeded, Tier::Bulk));
    assert_eq!(job.job_output_path, some("out/1"));
    let location = S3Location {
        bucket_name: some("b"),
        prefix: some("p"),
        encryption: Some(Encryption {
            encryption_type: some("aws:kms"),
            kms_key_id: some("k"),
            kms_context: some("c"),
        }),
        canned_acl: some("private"),
        access_control_list: vec![
            Grant {
                grantee: Some(Grantee {
                    r#type: some("Group"),
                    display_name: some("d"),
                    uri: some("u"),
                    id: some("i"),
                    email_address: some("e"),
                }),
                permission: some("READ"),
            },
            Grant { grantee: None, permission: some("WRITE") },
        ],
        tagging: HashMap::from([("team".to_owned(), "archive".to_owned())]),
        user_metadata: HashMap::from([("m".to_owned(), "n".to_owned())]),
        storage_class: some("STANDARD"),
    };
    assert_eq!(job.output_location, Some(OutputLocation { s3: Some(location) }));
    let input = CsvInput {
        comments: some("#"),
        field_delimiter: some(","),
        file_header_info: some("USE"),
        quote_character: some("\""),
        quote_escape_character: some("\\"),
        record_delimiter: some("\n"),
    };
    let output = CsvOutput {
        field_delimiter: some(";"),
        quote_character: some("'"),
        quote_escape_character: some("^"),
        quote_fields: some("ALWAYS"),
        record_delimiter: some("\r\n"),
    };
    let query = SelectParameters {
        input_serialization: Some(InputSerialization { csv: Some(input) }),
        expression_type: some("SQL"),
        expression: some("SELECT 1"),
        output_serialization: Some(OutputSerialization { csv: Some(output) }),
    };
    assert_eq!(job.select_parameters, Some(query));
    assert!(job.unrecognized_values.is_empty());
}

/// Every path of a value in `value`, with list indices.
fn leaves(value: &Value, path: &str, found: &mut Vec<String>) {
    let join = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    match value {
        Value::Object(members) => members.iter().for_each(|(name, value)| leaves(value, &join(name), found)),
        Value::Array(list) => list.iter().enumerate().for_each(|(i, v)| leaves(v, &format!("{path}[{i}]"), found)),
        _ => found.push(path.to_owned()),
    }
}

/// The value at a path that `leaves` found.
fn at<'v>(document: &'v mut Value, path: &str) -> &'v mut Value {
    let pointer = format!("/{}", path.replace('[', ".").replace(']', "").replace('.', "/"));
    document.pointer_mut(&pointer).unwrap()
}

#[test]
fn every_member_of_the_wrong_type_is_kept_under_its_glacier_path() {
    let mut document = select_job();
    let inventory = json!({"EndDate": "2019-01-01T00:00:00Z", "Format": "CSV", "Limit": "5", "Marker": "m",
        "StartDate": "2018-01-01T00:00:00Z"});
    for (name, value) in [
        ("InventoryRetrievalParameters", inventory),
        ("ArchiveSHA256TreeHash", json!("a")),
        ("ArchiveSizeInBytes", json!(1)),
        ("InventorySizeInBytes", json!(1)),
        ("RetrievalByteRange", json!("0-1")),
        ("SHA256TreeHash", json!("a")),
        ("SNSTopic", json!("t")),
    ] {
        document[name] = value;
    }
    assert_eq!(document.as_object().unwrap().len(), 21, "the document has all members");
    assert!(description::MEMBERS.iter().all(|name| document.get(*name).is_some()));
    let whole = read_json(&document);
    assert!(whole.unrecognized_values.is_empty());

    let mut paths = Vec::new();
    leaves(&document, "", &mut paths);
    paths.extend(
        ["OutputLocation", "OutputLocation.S3", "OutputLocation.S3.Encryption", "SelectParameters"].map(str::to_owned),
    );
    paths.extend(["OutputLocation.S3.AccessControlList", "OutputLocation.S3.AccessControlList[0]"].map(str::to_owned));
    paths.extend(["OutputLocation.S3.Tagging", "InventoryRetrievalParameters"].map(str::to_owned));
    paths
        .extend(["SelectParameters.InputSerialization.csv", "SelectParameters.OutputSerialization"].map(str::to_owned));
    paths.retain(|path| !path.contains("[1].Grantee"));
    assert!(paths.len() > 50, "{paths:?}");
    // A description whose job id is of the wrong type is refused, so nothing is asked about that here.
    let read_json = |document: &Value| description::decode(document.as_object().unwrap().clone()).unwrap();
    for path in paths {
        let mut changed = document.clone();
        *at(&mut changed, &path) = json!(1.5);
        let job = read_json(&changed);
        assert_eq!(job.unrecognized_values, HashMap::from([(path.clone(), "1.5".to_owned())]));
        assert_ne!(GlacierJobDescription { unrecognized_values: HashMap::new(), ..job }, whole, "{path} is unset");

        *at(&mut changed, &path) = Value::Null;
        assert!(read_json(&changed).unrecognized_values.is_empty(), "{path}: null is nothing");
    }
}

#[test]
fn null_and_missing_are_alike() {
    for document in [archive_job(), select_job()] {
        let without_nulls: Map<String, Value> =
            document.as_object().unwrap().clone().into_iter().filter(|(_, value)| !value.is_null()).collect();
        assert_eq!(read_json(&document), read_json(&Value::Object(without_nulls)));
    }
}

/// U20
#[test]
fn what_the_schema_cannot_hold_is_kept_as_text() {
    for (member, value, kept) in [
        ("StatusCode", json!("Paused"), "Paused"),
        ("StatusCode", json!("succeeded"), "succeeded"),
        ("Action", json!(""), ""),
        ("Tier", json!("Glacial"), "Glacial"),
        ("Tier", json!(3), "3"),
        ("CreationDate", json!("yesterday"), "yesterday"),
        ("CompletionDate", json!(1_562_216_767), "1562216767"),
        ("ArchiveSizeInBytes", json!("12"), "12"),
        ("ArchiveSizeInBytes", json!(1.0), "1.0"),
        ("ArchiveSizeInBytes", json!(u64::MAX), "18446744073709551615"),
        ("Completed", json!("true"), "true"),
        ("JobDescription", json!(["a"]), "[\"a\"]"),
        ("OutputLocation", json!("s3://b"), "s3://b"),
    ] {
        let mut document = archive_job();
        document[member] = value;
        let job = read_json(&document);
        assert_eq!(job.unrecognized_values, HashMap::from([(member.to_owned(), kept.to_owned())]), "{member}");
    }
}

/// U20
#[test]
fn unknown_members_are_ignored() {
    let mut document = archive_job();
    document["NextInventoryRetrievalMarker"] = json!({"a": [null]});
    document["statuscode"] = json!("Failed");
    assert_eq!(read_json(&document), read_json(&archive_job()));
}

/// U21
#[test]
fn a_description_that_contradicts_itself_is_passed_on() {
    let mut document = archive_job();
    document["Completed"] = json!(true);
    document["CreationDate"] = json!("1970-01-01T00:00:00Z");
    document["ArchiveSizeInBytes"] = json!(-1);
    let job = read_json(&document);
    assert_eq!((job.completed, job.status_code()), (Some(true), JobStatus::InProgress));
    assert_eq!((job.creation_date, job.archive_size_in_bytes), (Some(Timestamp::default()), Some(-1)));
    assert!(job.unrecognized_values.is_empty());
}

/// U19
#[test]
fn any_success_with_a_description_is_an_answer() {
    for status in [200, 201, 202, 203, 206, 299] {
        assert!(read(status, archive_job().to_string().as_bytes()).is_ok(), "{status}");
    }
    assert_eq!(kind(204, ""), Some(Kind::Malformed));
}
