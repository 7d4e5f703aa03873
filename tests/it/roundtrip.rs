//! Any description that the emulator can hold comes out the same, through HTTP, decoding, the cache and gRPC.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicUsize, Ordering},
};

use glacier_gateway::{
    emulator::EmulatedJob,
    proto::v1::{
        Action, CsvInput, CsvOutput, Encryption, GlacierJobDescription, Grant, Grantee, InputSerialization,
        InventoryRetrievalJobDescription, OutputLocation, OutputSerialization, S3Location, SelectParameters,
        StatusCode, Tier,
    },
};
use proptest::{option, prelude::*};
use prost_types::Timestamp;
use serde_json::{Value, json};

use crate::support::gateway::Gateway;

fn text() -> impl Strategy<Value = Option<String>> {
    option::of(any::<String>())
}

/// Years 1970 to 9999, with the milliseconds that Glacier writes.
fn date() -> impl Strategy<Value = Option<Timestamp>> {
    let timestamp = (0_i64..253_402_300_800, 0_i32..1000)
        .prop_map(|(seconds, millis)| Timestamp { seconds, nanos: millis * 1_000_000 });
    option::of(timestamp)
}

fn size() -> impl Strategy<Value = Option<i64>> {
    option::of(any::<i64>())
}

fn map() -> impl Strategy<Value = HashMap<String, String>> {
    prop::collection::hash_map(any::<String>(), any::<String>(), 0..4)
}

prop_compose! {
    fn inventory()(end_date in date(), format in text(), limit in text(), marker in text(), start_date in date())
        -> InventoryRetrievalJobDescription
    {
        InventoryRetrievalJobDescription { end_date, format, limit, marker, start_date }
    }
}

prop_compose! {
    fn grant()(
        grantee in option::of((text(), text(), text(), text(), text())),
        permission in text(),
    ) -> Grant {
        let grantee = grantee.map(|(kind, display_name, uri, id, email_address)| {
            Grantee { r#type: kind, display_name, uri, id, email_address }
        });
        Grant { grantee, permission }
    }
}

prop_compose! {
    fn output_location()(
        (bucket_name, prefix, canned_acl, storage_class) in (text(), text(), text(), text()),
        encryption in option::of((text(), text(), text())),
        access_control_list in prop::collection::vec(grant(), 0..3),
        tagging in map(),
        user_metadata in map(),
    ) -> OutputLocation {
        let encryption = encryption.map(|(encryption_type, kms_key_id, kms_context)| {
            Encryption { encryption_type, kms_key_id, kms_context }
        });
        let s3 = S3Location {
            bucket_name, prefix, encryption, canned_acl, access_control_list, tagging, user_metadata, storage_class,
        };
        OutputLocation { s3: Some(s3) }
    }
}

prop_compose! {
    fn select()(
        input in option::of((text(), text(), text(), text(), text(), text())),
        (expression_type, expression) in (text(), text()),
        output in option::of((text(), text(), text(), text(), text())),
    ) -> SelectParameters {
        let input = input.map(|parts| CsvInput {
            comments: parts.0,
            field_delimiter: parts.1,
            file_header_info: parts.2,
            quote_character: parts.3,
            quote_escape_character: parts.4,
            record_delimiter: parts.5,
        });
        let output = output.map(|parts| CsvOutput {
            field_delimiter: parts.0,
            quote_character: parts.1,
            quote_escape_character: parts.2,
            quote_fields: parts.3,
            record_delimiter: parts.4,
        });
        SelectParameters {
            input_serialization: input.map(|csv| InputSerialization { csv: Some(csv) }),
            expression_type,
            expression,
            output_serialization: output.map(|csv| OutputSerialization { csv: Some(csv) }),
        }
    }
}

prop_compose! {
    fn description()(
        (action, status_code, tier) in (0..=3_i32, 0..=3_i32, 0..=3_i32),
        (archive_id, archive_sha256_tree_hash, job_description, job_output_path) in (text(), text(), text(), text()),
        (retrieval_byte_range, sha256_tree_hash, sns_topic, status_message) in (text(), text(), text(), text()),
        (archive_size_in_bytes, inventory_size_in_bytes) in (size(), size()),
        (completion_date, creation_date) in (date(), date()),
        completed in any::<Option<bool>>(),
        inventory_retrieval_parameters in option::of(inventory()),
        output_location in option::of(output_location()),
        select_parameters in option::of(select()),
        vault_arn in option::of(Just("arn:aws:glacier:us-east-1:1234:vaults/vault".to_owned())),
    ) -> GlacierJobDescription {
        GlacierJobDescription {
            action, archive_id, archive_sha256_tree_hash, archive_size_in_bytes, completed, completion_date,
            creation_date, inventory_retrieval_parameters, inventory_size_in_bytes, job_description,
            job_id: None, job_output_path, output_location, retrieval_byte_range, sha256_tree_hash, sns_topic,
            select_parameters, status_code, status_message, tier, vault_arn,
            unrecognized_values: HashMap::new(),
        }
    }
}

/// A description as Glacier writes it.
fn document(d: &GlacierJobDescription) -> Value {
    json!({
        "Action": match d.action() {
            Action::Unspecified => None,
            Action::ArchiveRetrieval => Some("ArchiveRetrieval"),
            Action::InventoryRetrieval => Some("InventoryRetrieval"),
            Action::Select => Some("Select"),
        },
        "ArchiveId": d.archive_id,
        "ArchiveSHA256TreeHash": d.archive_sha256_tree_hash,
        "ArchiveSizeInBytes": d.archive_size_in_bytes,
        "Completed": d.completed,
        "CompletionDate": written(d.completion_date),
        "CreationDate": written(d.creation_date),
        "InventoryRetrievalParameters": d.inventory_retrieval_parameters.as_ref().map(|p| json!({
            "EndDate": written(p.end_date), "Format": p.format, "Limit": p.limit, "Marker": p.marker,
            "StartDate": written(p.start_date),
        })),
        "InventorySizeInBytes": d.inventory_size_in_bytes,
        "JobDescription": d.job_description,
        "JobId": d.job_id,
        "JobOutputPath": d.job_output_path,
        "OutputLocation": d.output_location.as_ref().map(|location| json!({ "S3": location.s3.as_ref().map(s3) })),
        "RetrievalByteRange": d.retrieval_byte_range,
        "SHA256TreeHash": d.sha256_tree_hash,
        "SNSTopic": d.sns_topic,
        "SelectParameters": d.select_parameters.as_ref().map(parameters),
        "StatusCode": match d.status_code() {
            StatusCode::Unspecified => None,
            StatusCode::InProgress => Some("InProgress"),
            StatusCode::Succeeded => Some("Succeeded"),
            StatusCode::Failed => Some("Failed"),
        },
        "StatusMessage": d.status_message,
        "Tier": match d.tier() {
            Tier::Unspecified => None,
            Tier::Expedited => Some("Expedited"),
            Tier::Standard => Some("Standard"),
            Tier::Bulk => Some("Bulk"),
        },
        "VaultARN": d.vault_arn,
    })
}

fn written(date: Option<Timestamp>) -> Option<String> {
    date.map(|date| date.to_string())
}

fn s3(s3: &S3Location) -> Value {
    json!({
        "BucketName": s3.bucket_name, "Prefix": s3.prefix, "CannedACL": s3.canned_acl, "StorageClass": s3.storage_class,
        "Encryption": s3.encryption.as_ref().map(|e| json!({
            "EncryptionType": e.encryption_type, "KMSKeyId": e.kms_key_id, "KMSContext": e.kms_context,
        })),
        "AccessControlList": s3.access_control_list.iter().map(|grant| json!({
            "Grantee": grant.grantee.as_ref().map(|g| json!({
                "Type": g.r#type, "DisplayName": g.display_name, "URI": g.uri, "ID": g.id,
                "EmailAddress": g.email_address,
            })),
            "Permission": grant.permission,
        })).collect::<Vec<_>>(),
        "Tagging": s3.tagging, "UserMetadata": s3.user_metadata,
    })
}

fn parameters(select: &SelectParameters) -> Value {
    json!({
        "InputSerialization": select.input_serialization.as_ref().map(|input| json!({
            "csv": input.csv.as_ref().map(|csv| json!({
                "Comments": csv.comments, "FieldDelimiter": csv.field_delimiter, "FileHeaderInfo": csv.file_header_info,
                "QuoteCharacter": csv.quote_character, "QuoteEscapeCharacter": csv.quote_escape_character,
                "RecordDelimiter": csv.record_delimiter,
            })),
        })),
        "ExpressionType": select.expression_type,
        "Expression": select.expression,
        "OutputSerialization": select.output_serialization.as_ref().map(|output| json!({
            "csv": output.csv.as_ref().map(|csv| json!({
                "FieldDelimiter": csv.field_delimiter, "QuoteCharacter": csv.quote_character,
                "QuoteEscapeCharacter": csv.quote_escape_character, "QuoteFields": csv.quote_fields,
                "RecordDelimiter": csv.record_delimiter,
            })),
        })),
    })
}

#[test]
fn any_description_comes_out_the_same() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let gateway = runtime.block_on(Gateway::start());
    let config = ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() };
    let count = AtomicUsize::new(0);
    proptest!(config, |(mut expected in description())| {
        // Shrinking tries many descriptions in a second: each needs a name that the cache does not know.
        expected.job_id = Some(format!("-job_{}", count.fetch_add(1, Ordering::Relaxed)));
        let id = gateway.add(EmulatedJob::from_document(document(&expected)));
        let answer = runtime.block_on(gateway.ask(&id));
        prop_assert_eq!(answer.unwrap().into_inner().job, Some(expected));
    });
}
