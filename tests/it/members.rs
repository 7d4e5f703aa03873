//! Every member of a description, from Glacier's JSON over real HTTP to the decoded gRPC answer.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use glacier_gateway::{
    emulator::EmulatedJob,
    proto::v1::{
        Action, CsvInput, CsvOutput, Encryption, GlacierJobDescription, Grant, Grantee, InputSerialization,
        InventoryRetrievalJobDescription, OutputLocation, OutputSerialization, S3Location, SelectParameters,
        StatusCode, Tier,
    },
};
use prost_types::Timestamp;
use serde_json::{Map, Value, json};

use crate::support::gateway::{Gateway, cache_status};

const ARN: &str = "arn:aws:glacier:us-east-1:123456789012:vaults/vault";

/// What the gateway makes of a document.
async fn through(gateway: &Gateway, document: Value) -> GlacierJobDescription {
    let id = gateway.add(EmulatedJob::from_document(document));
    gateway.ask(&id).await.unwrap().into_inner().job.unwrap()
}

/// A document that has nothing but what every job has.
fn least(id: &str) -> Map<String, Value> {
    let Value::Object(document) = json!({ "JobId": id, "Action": "ArchiveRetrieval" }) else { unreachable!() };
    document
}

fn least_description(id: &str) -> GlacierJobDescription {
    GlacierJobDescription {
        job_id: Some(id.to_owned()),
        action: Action::ArchiveRetrieval.into(),
        ..GlacierJobDescription::default()
    }
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

type Set = fn(&mut GlacierJobDescription);

/// A member in Glacier's JSON, and what it is in the answer.
fn members() -> Vec<(&'static str, Value, Set)> {
    vec![
        ("Action", json!("ArchiveRetrieval"), |d| d.set_action(Action::ArchiveRetrieval)),
        ("Action", json!("InventoryRetrieval"), |d| d.set_action(Action::InventoryRetrieval)),
        ("Action", json!("Select"), |d| d.set_action(Action::Select)),
        ("ArchiveId", json!("NkbByEejwEggmBz2fTHgJrg0XBoDfjP4q6iu87"), |d| {
            d.archive_id = Some("NkbByEejwEggmBz2fTHgJrg0XBoDfjP4q6iu87".to_owned());
        }),
        ("ArchiveSHA256TreeHash", json!("9628195fcdbcbbe7"), |d| {
            d.archive_sha256_tree_hash = Some("9628195fcdbcbbe7".to_owned());
        }),
        ("ArchiveSizeInBytes", json!(0), |d| d.archive_size_in_bytes = Some(0)),
        ("ArchiveSizeInBytes", json!(i64::MAX), |d| d.archive_size_in_bytes = Some(i64::MAX)),
        ("Completed", json!(true), |d| d.completed = Some(true)),
        ("Completed", json!(false), |d| d.completed = Some(false)),
        ("CompletionDate", json!("2026-02-03T04:05:06.789Z"), |d| {
            d.completion_date = Some(at("2026-02-03T04:05:06.789Z"));
        }),
        ("CreationDate", json!("2026-02-03T04:05:06Z"), |d| d.creation_date = Some(at("2026-02-03T04:05:06Z"))),
        ("CreationDate", json!("2026-02-03T04:05:06.1234567Z"), |d| {
            d.creation_date = Some(at("2026-02-03T04:05:06.1234567Z"));
        }),
        ("InventoryRetrievalParameters", inventory_json(), |d| d.inventory_retrieval_parameters = Some(inventory())),
        (
            "InventoryRetrievalParameters",
            json!({ "EndDate": null, "Format": "CSV", "Limit": null, "Marker": null, "StartDate": null }),
            |d| {
                d.inventory_retrieval_parameters = Some(InventoryRetrievalJobDescription {
                    format: Some("CSV".to_owned()),
                    ..InventoryRetrievalJobDescription::default()
                });
            },
        ),
        ("InventorySizeInBytes", json!(1), |d| d.inventory_size_in_bytes = Some(1)),
        ("JobDescription", json!("späte \"Wörter\"\n\u{0}"), |d| {
            d.job_description = Some("späte \"Wörter\"\n\u{0}".to_owned());
        }),
        ("JobDescription", json!(""), |d| d.job_description = Some(String::new())),
        ("JobOutputPath", json!("test-1/HkF9p6"), |d| d.job_output_path = Some("test-1/HkF9p6".to_owned())),
        ("OutputLocation", output_location_json(), |d| d.output_location = Some(output_location())),
        ("RetrievalByteRange", json!("0-16777215"), |d| d.retrieval_byte_range = Some("0-16777215".to_owned())),
        ("SHA256TreeHash", json!("beb0fe31a1c7ca8c"), |d| d.sha256_tree_hash = Some("beb0fe31a1c7ca8c".to_owned())),
        ("SNSTopic", json!("arn:aws:sns:us-east-1:123456789012:t"), |d| {
            d.sns_topic = Some("arn:aws:sns:us-east-1:123456789012:t".to_owned());
        }),
        ("SelectParameters", select_json(), |d| d.select_parameters = Some(select())),
        ("StatusCode", json!("InProgress"), |d| d.set_status_code(StatusCode::InProgress)),
        ("StatusCode", json!("Succeeded"), |d| d.set_status_code(StatusCode::Succeeded)),
        ("StatusCode", json!("Failed"), |d| d.set_status_code(StatusCode::Failed)),
        ("StatusMessage", json!("Operation in progress."), |d| {
            d.status_message = Some("Operation in progress.".to_owned());
        }),
        ("Tier", json!("Expedited"), |d| d.set_tier(Tier::Expedited)),
        ("Tier", json!("Standard"), |d| d.set_tier(Tier::Standard)),
        ("Tier", json!("Bulk"), |d| d.set_tier(Tier::Bulk)),
        ("VaultARN", json!(ARN), |d| d.vault_arn = Some(ARN.to_owned())),
    ]
}

/// The 21 members, of which `JobId` is in every document here.
#[test]
fn the_table_walks_every_member() {
    let names: BTreeSet<_> = members().into_iter().map(|(name, ..)| name).chain(["JobId"]).collect();
    let glaciers = [
        "Action",
        "ArchiveId",
        "ArchiveSHA256TreeHash",
        "ArchiveSizeInBytes",
        "Completed",
        "CompletionDate",
        "CreationDate",
        "InventoryRetrievalParameters",
        "InventorySizeInBytes",
        "JobDescription",
        "JobId",
        "JobOutputPath",
        "OutputLocation",
        "RetrievalByteRange",
        "SHA256TreeHash",
        "SNSTopic",
        "SelectParameters",
        "StatusCode",
        "StatusMessage",
        "Tier",
        "VaultARN",
    ];
    assert_eq!(names, BTreeSet::from(glaciers));
}

#[tokio::test]
async fn each_member_arrives_in_its_field_and_nowhere_else() {
    let gateway = Gateway::start().await;
    for (index, (member, value, set)) in members().into_iter().enumerate() {
        let id = format!("job-{index}");
        let mut document = least(&id);
        document.insert(member.to_owned(), value);
        let mut expected = least_description(&id);
        set(&mut expected);
        assert_eq!(through(&gateway, document.into()).await, expected, "{member}");
    }
}

#[tokio::test]
async fn null_and_missing_are_alike() {
    let gateway = Gateway::start().await;
    let mut document = least("null");
    for (member, ..) in members() {
        document.entry(member).or_insert(Value::Null);
    }
    assert_eq!(document.len(), 21);
    assert_eq!(through(&gateway, document.into()).await, least_description("null"));
    assert_eq!(through(&gateway, least("missing").into()).await, least_description("missing"));
}

/// U20.
#[tokio::test]
async fn nothing_that_glacier_says_anew_is_lost() {
    let gateway = Gateway::start().await;
    let new_things = json!({
        "JobId": "new",
        "Action": "Defrost",
        "StatusCode": "Paused",
        "Tier": "Instant",
        "CreationDate": "yesterday",
        "ArchiveSizeInBytes": "12",
        "Completed": "yes",
        "InventoryRetrievalParameters": { "StartDate": "2026-02-30T00:00:00Z", "Format": "XML" },
        "NextInventoryRetrievalMarker": "a member that we do not know is passed over",
    });
    let kept = HashMap::from(
        [
            ("Action", "Defrost"),
            ("StatusCode", "Paused"),
            ("Tier", "Instant"),
            ("CreationDate", "yesterday"),
            ("ArchiveSizeInBytes", "12"),
            ("Completed", "yes"),
            ("InventoryRetrievalParameters.StartDate", "2026-02-30T00:00:00Z"),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned())),
    );
    let expected = GlacierJobDescription {
        job_id: Some("new".to_owned()),
        inventory_retrieval_parameters: Some(InventoryRetrievalJobDescription {
            format: Some("XML".to_owned()),
            ..InventoryRetrievalJobDescription::default()
        }),
        unrecognized_values: kept,
        ..GlacierJobDescription::default()
    };
    assert_eq!(through(&gateway, new_things).await, expected);
}

/// U21.
#[tokio::test]
async fn a_description_that_contradicts_itself_is_given_as_it_is_and_asked_about_again_soon() {
    let gateway = Gateway::start().await;
    let succeeded = json!({ "Completed": true, "StatusCode": "Succeeded", "CreationDate": "2026-01-01T00:00:00Z" });
    let dated = |date: &str| json!({ "CompletionDate": date });
    let contradictions = [
        ("running", json!({ "StatusCode": "InProgress" })),
        ("undated", json!({})),
        ("past", dated("1970-01-01T00:00:00Z")),
        ("future", dated("2100-01-01T00:00:00Z")),
    ];
    for (id, changes) in contradictions {
        let mut document = least(id);
        for members in [&succeeded, &changes] {
            document.extend(members.as_object().unwrap().clone());
        }
        let job = through(&gateway, document.into()).await;
        let status = if id == "running" { StatusCode::InProgress } else { StatusCode::Succeeded };
        assert_eq!((job.completed, job.status_code()), (Some(true), status), "{id}");
        let completion = changes["CompletionDate"].as_str().map(at);
        assert_eq!((job.completion_date, job.unrecognized_values), (completion, HashMap::new()), "{id}");
        let hit = gateway.ask(id).await.unwrap();
        let ttl = cache_status(hit.metadata()).strip_prefix("hit; ttl=").unwrap().parse::<u64>().unwrap();
        assert!(ttl <= 11, "ten seconds, give or take a tenth: {ttl}");
    }
}

/// U19.
#[tokio::test]
async fn a_description_under_201_is_an_answer() {
    use glacier_gateway::emulator::Fault;
    let gateway = Gateway::start().await;
    let body = Value::from(least("created")).to_string();
    gateway.emulator.faults().always(Fault::respond(201, &[("content-type", "application/json")], body));
    assert_eq!(gateway.ask("created").await.unwrap().into_inner().job, Some(least_description("created")));
}

/// The three kinds of job as Glacier writes them, nulls and all.
#[tokio::test]
async fn jobs_of_all_kinds_and_states_are_described() {
    use glacier_gateway::emulator::Tier as T;
    let gateway = Gateway::start().await;
    let hour = Duration::from_hours(1);
    let job = async |job: EmulatedJob| gateway.ask(&gateway.add(job)).await.unwrap().into_inner().job.unwrap();

    for (tier, expected) in [(T::Expedited, Tier::Expedited), (T::Standard, Tier::Standard), (T::Bulk, Tier::Bulk)] {
        let running = job(EmulatedJob::archive(tier)).await;
        assert_eq!(
            (running.action(), running.tier(), running.status_code()),
            (Action::ArchiveRetrieval, expected, StatusCode::InProgress)
        );
        assert_eq!((running.completed, running.completion_date), (Some(false), None));
        assert!(running.archive_size_in_bytes.is_some() && running.select_parameters.is_none());
    }
    let inventory = job(EmulatedJob::inventory().already_completed(hour)).await;
    assert_eq!((inventory.action(), inventory.status_code()), (Action::InventoryRetrieval, StatusCode::Succeeded));
    assert!(inventory.inventory_size_in_bytes.is_some() && inventory.archive_id.is_none());
    let select = job(EmulatedJob::select().already_completed(hour)).await;
    assert_eq!(select.action(), Action::Select);
    assert!(select.output_location.is_some() && select.select_parameters.is_some() && select.job_output_path.is_some());
    let failed = job(EmulatedJob::archive(T::Bulk).failing("no luck").already_completed(hour)).await;
    assert_eq!((failed.status_code(), failed.completed), (StatusCode::Failed, Some(true)));
    for job in [inventory, select, failed] {
        assert_eq!(job.unrecognized_values, HashMap::new());
    }
}

fn inventory_json() -> Value {
    json!({
        "EndDate": "2026-03-20T00:00:00Z", "Format": "JSON", "Limit": "10000", "Marker": "vyS0t2jH", "StartDate": "2026-01-01T12:30:00Z",
    })
}

fn inventory() -> InventoryRetrievalJobDescription {
    InventoryRetrievalJobDescription {
        end_date: Some(at("2026-03-20T00:00:00Z")),
        format: Some("JSON".to_owned()),
        limit: Some("10000".to_owned()),
        marker: Some("vyS0t2jH".to_owned()),
        start_date: Some(at("2026-01-01T12:30:00Z")),
    }
}

fn output_location_json() -> Value {
    json!({ "S3": {
        "BucketName": "bucket", "Prefix": "results/", "CannedACL": "private", "StorageClass": "STANDARD_IA",
        "Encryption": { "EncryptionType": "aws:kms", "KMSKeyId": "key-1", "KMSContext": "{\"a\":\"b\"}" },
        "AccessControlList": [
            { "Grantee": { "Type": "CanonicalUser", "DisplayName": "me", "URI": null, "ID": "75aa57f0", "EmailAddress": null }, "Permission": "READ" },
            { "Grantee": { "Type": "Group", "URI": "http://acs.example/groups/all" }, "Permission": "FULL_CONTROL" },
            { "Grantee": { "Type": "AmazonCustomerByEmail", "EmailAddress": "a@example.com" }, "Permission": null },
        ],
        "Tagging": { "team": "archive", "empty": "" },
        "UserMetadata": { "x": "y" },
    } })
}

fn output_location() -> OutputLocation {
    let text = |text: &str| Some(text.to_owned());
    let map = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let user =
        Grantee { r#type: text("CanonicalUser"), display_name: text("me"), id: text("75aa57f0"), ..Grantee::default() };
    let group = Grantee { r#type: text("Group"), uri: text("http://acs.example/groups/all"), ..Grantee::default() };
    let mail =
        Grantee { r#type: text("AmazonCustomerByEmail"), email_address: text("a@example.com"), ..Grantee::default() };
    let s3 = S3Location {
        bucket_name: text("bucket"),
        prefix: text("results/"),
        encryption: Some(Encryption {
            encryption_type: text("aws:kms"),
            kms_key_id: text("key-1"),
            kms_context: text("{\"a\":\"b\"}"),
        }),
        canned_acl: text("private"),
        access_control_list: vec![
            Grant { grantee: Some(user), permission: text("READ") },
            Grant { grantee: Some(group), permission: text("FULL_CONTROL") },
            Grant { grantee: Some(mail), permission: None },
        ],
        tagging: map(&[("team", "archive"), ("empty", "")]),
        user_metadata: map(&[("x", "y")]),
        storage_class: text("STANDARD_IA"),
    };
    OutputLocation { s3: Some(s3) }
}

fn select_json() -> Value {
    json!({
        "InputSerialization": { "csv": {
            "Comments": "#", "FieldDelimiter": ",", "FileHeaderInfo": "USE", "QuoteCharacter": "\"",
            "QuoteEscapeCharacter": "\\", "RecordDelimiter": "\n",
        } },
        "ExpressionType": "SQL",
        "Expression": "select * from archive",
        "OutputSerialization": { "csv": {
            "FieldDelimiter": ";", "QuoteCharacter": "'", "QuoteEscapeCharacter": "^", "QuoteFields": "ASNEEDED",
            "RecordDelimiter": "\r\n",
        } },
    })
}

fn select() -> SelectParameters {
    let text = |text: &str| Some(text.to_owned());
    SelectParameters {
        input_serialization: Some(InputSerialization {
            csv: Some(CsvInput {
                comments: text("#"),
                field_delimiter: text(","),
                file_header_info: text("USE"),
                quote_character: text("\""),
                quote_escape_character: text("\\"),
                record_delimiter: text("\n"),
            }),
        }),
        expression_type: text("SQL"),
        expression: text("select * from archive"),
        output_serialization: Some(OutputSerialization {
            csv: Some(CsvOutput {
                field_delimiter: text(";"),
                quote_character: text("'"),
                quote_escape_character: text("^"),
                quote_fields: text("ASNEEDED"),
                record_delimiter: text("\r\n"),
            }),
        }),
    }
}
