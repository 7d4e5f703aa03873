//! The 21 members of Glacier's `GlacierJobDescription`, and everything nested in them.

use serde_json::{Map, Value};

use super::member::{Members, Unrecognized};
use crate::proto::v1::{
    Action, CsvInput, CsvOutput, Encryption, GlacierJobDescription, Grant, Grantee, InputSerialization,
    InventoryRetrievalJobDescription, OutputLocation, OutputSerialization, S3Location, SelectParameters, StatusCode,
    Tier,
};

/// Glacier's names of the members.
pub(super) const MEMBERS: [&str; 21] = [
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

/// Reads a description. `None` if the object has a value for none of its members: then it is something else, such as
/// an error document under a status of success.
pub(super) fn decode(document: Map<String, Value>) -> Option<GlacierJobDescription> {
    let mut from = Members::of_document(document);
    if from.has_none_of(&MEMBERS) {
        return None;
    }
    let mut unrecognized = Unrecognized::new();
    let lost = &mut unrecognized;
    let job = GlacierJobDescription {
        action: from.choice("Action", action, lost),
        archive_id: from.string("ArchiveId", lost),
        archive_sha256_tree_hash: from.string("ArchiveSHA256TreeHash", lost),
        archive_size_in_bytes: from.integer("ArchiveSizeInBytes", lost),
        completed: from.boolean("Completed", lost),
        completion_date: from.date("CompletionDate", lost),
        creation_date: from.date("CreationDate", lost),
        inventory_retrieval_parameters: from
            .object("InventoryRetrievalParameters", lost)
            .map(|from| inventory_parameters(from, lost)),
        inventory_size_in_bytes: from.integer("InventorySizeInBytes", lost),
        job_description: from.string("JobDescription", lost),
        job_id: from.string("JobId", lost),
        job_output_path: from.string("JobOutputPath", lost),
        output_location: from.object("OutputLocation", lost).map(|from| output_location(from, lost)),
        retrieval_byte_range: from.string("RetrievalByteRange", lost),
        sha256_tree_hash: from.string("SHA256TreeHash", lost),
        sns_topic: from.string("SNSTopic", lost),
        select_parameters: from.object("SelectParameters", lost).map(|from| select_parameters(from, lost)),
        status_code: from.choice("StatusCode", status_code, lost),
        status_message: from.string("StatusMessage", lost),
        tier: from.choice("Tier", tier, lost),
        vault_arn: from.string("VaultARN", lost),
        unrecognized_values: Unrecognized::new(),
    };
    Some(GlacierJobDescription { unrecognized_values: unrecognized, ..job })
}

fn action(text: &str) -> Option<Action> {
    match text {
        "ArchiveRetrieval" => Some(Action::ArchiveRetrieval),
        "InventoryRetrieval" => Some(Action::InventoryRetrieval),
        "Select" => Some(Action::Select),
        _ => None,
    }
}

fn status_code(text: &str) -> Option<StatusCode> {
    match text {
        "InProgress" => Some(StatusCode::InProgress),
        "Succeeded" => Some(StatusCode::Succeeded),
        "Failed" => Some(StatusCode::Failed),
        _ => None,
    }
}

fn tier(text: &str) -> Option<Tier> {
    match text {
        "Expedited" => Some(Tier::Expedited),
        "Standard" => Some(Tier::Standard),
        "Bulk" => Some(Tier::Bulk),
        _ => None,
    }
}

fn inventory_parameters(mut from: Members, lost: &mut Unrecognized) -> InventoryRetrievalJobDescription {
    InventoryRetrievalJobDescription {
        end_date: from.date("EndDate", lost),
        format: from.string("Format", lost),
        limit: from.string("Limit", lost),
        marker: from.string("Marker", lost),
        start_date: from.date("StartDate", lost),
    }
}

fn output_location(mut from: Members, lost: &mut Unrecognized) -> OutputLocation {
    OutputLocation { s3: from.object("S3", lost).map(|from| s3_location(from, lost)) }
}

fn s3_location(mut from: Members, lost: &mut Unrecognized) -> S3Location {
    S3Location {
        bucket_name: from.string("BucketName", lost),
        prefix: from.string("Prefix", lost),
        encryption: from.object("Encryption", lost).map(|from| encryption(from, lost)),
        canned_acl: from.string("CannedACL", lost),
        access_control_list: from
            .objects("AccessControlList", lost)
            .into_iter()
            .map(|from| grant(from, lost))
            .collect(),
        tagging: from.texts("Tagging", lost),
        user_metadata: from.texts("UserMetadata", lost),
        storage_class: from.string("StorageClass", lost),
    }
}

fn encryption(mut from: Members, lost: &mut Unrecognized) -> Encryption {
    Encryption {
        encryption_type: from.string("EncryptionType", lost),
        kms_key_id: from.string("KMSKeyId", lost),
        kms_context: from.string("KMSContext", lost),
    }
}

fn grant(mut from: Members, lost: &mut Unrecognized) -> Grant {
    Grant {
        grantee: from.object("Grantee", lost).map(|from| grantee(from, lost)),
        permission: from.string("Permission", lost),
    }
}

fn grantee(mut from: Members, lost: &mut Unrecognized) -> Grantee {
    Grantee {
        r#type: from.string("Type", lost),
        display_name: from.string("DisplayName", lost),
        uri: from.string("URI", lost),
        id: from.string("ID", lost),
        email_address: from.string("EmailAddress", lost),
    }
}

fn select_parameters(mut from: Members, lost: &mut Unrecognized) -> SelectParameters {
    SelectParameters {
        input_serialization: from.object("InputSerialization", lost).map(|mut from| InputSerialization {
            // `csv` is Glacier's only member in lower case.
            csv: from.object("csv", lost).map(|from| csv_input(from, lost)),
        }),
        expression_type: from.string("ExpressionType", lost),
        expression: from.string("Expression", lost),
        output_serialization: from
            .object("OutputSerialization", lost)
            .map(|mut from| OutputSerialization { csv: from.object("csv", lost).map(|from| csv_output(from, lost)) }),
    }
}

fn csv_input(mut from: Members, lost: &mut Unrecognized) -> CsvInput {
    CsvInput {
        comments: from.string("Comments", lost),
        field_delimiter: from.string("FieldDelimiter", lost),
        file_header_info: from.string("FileHeaderInfo", lost),
        quote_character: from.string("QuoteCharacter", lost),
        quote_escape_character: from.string("QuoteEscapeCharacter", lost),
        record_delimiter: from.string("RecordDelimiter", lost),
    }
}

fn csv_output(mut from: Members, lost: &mut Unrecognized) -> CsvOutput {
    CsvOutput {
        field_delimiter: from.string("FieldDelimiter", lost),
        quote_character: from.string("QuoteCharacter", lost),
        quote_escape_character: from.string("QuoteEscapeCharacter", lost),
        quote_fields: from.string("QuoteFields", lost),
        record_delimiter: from.string("RecordDelimiter", lost),
    }
}
