"""The complete table from Glacier's members to our fields, and what a message holds in the same terms.

`expected(JOB, document)` reads boto3's answer by the table; `actual(message)` reads ours without it, so that a field which
is set and should not be is found as well as one which is missing.
"""

from collections.abc import Callable
from datetime import datetime
from typing import NamedTuple

from google.protobuf.timestamp_pb2 import Timestamp


class Member(NamedTuple):
    """Where a Glacier member goes, and how its value is said there; `table` and `many` describe nested members."""

    field: str
    convert: Callable = lambda value: value
    table: dict | None = None
    many: bool = False


def one_of(**names):
    """A closed set: Glacier's word to the name of our enum value."""
    return names.__getitem__


def nested(field, table, many=False):
    """A member that is a structure, or a list of them, described by a table of its own."""

    def convert(value):
        return [expected(table, item) for item in value] if many else expected(table, value)

    return Member(field, convert, table, many)


ACTION = one_of(
    ArchiveRetrieval="ACTION_ARCHIVE_RETRIEVAL",
    InventoryRetrieval="ACTION_INVENTORY_RETRIEVAL",
    Select="ACTION_SELECT",
)
STATUS_CODE = one_of(
    InProgress="STATUS_CODE_IN_PROGRESS",
    Succeeded="STATUS_CODE_SUCCEEDED",
    Failed="STATUS_CODE_FAILED",
)
TIER = one_of(Expedited="TIER_EXPEDITED", Standard="TIER_STANDARD", Bulk="TIER_BULK")
DATE = datetime.fromisoformat

INVENTORY_RETRIEVAL = {
    "EndDate": Member("end_date", DATE),
    "Format": Member("format"),
    "Limit": Member("limit"),
    "Marker": Member("marker"),
    "StartDate": Member("start_date", DATE),
}
ENCRYPTION = {
    "EncryptionType": Member("encryption_type"),
    "KMSKeyId": Member("kms_key_id"),
    "KMSContext": Member("kms_context"),
}
GRANTEE = {
    "Type": Member("type"),
    "DisplayName": Member("display_name"),
    "URI": Member("uri"),
    "ID": Member("id"),
    "EmailAddress": Member("email_address"),
}
GRANT = {"Grantee": nested("grantee", GRANTEE), "Permission": Member("permission")}
S3 = {
    "BucketName": Member("bucket_name"),
    "Prefix": Member("prefix"),
    "Encryption": nested("encryption", ENCRYPTION),
    "CannedACL": Member("canned_acl"),
    "AccessControlList": nested("access_control_list", GRANT, many=True),
    "Tagging": Member("tagging"),
    "UserMetadata": Member("user_metadata"),
    "StorageClass": Member("storage_class"),
}
CSV_INPUT = {
    "Comments": Member("comments"),
    "FieldDelimiter": Member("field_delimiter"),
    "FileHeaderInfo": Member("file_header_info"),
    "QuoteCharacter": Member("quote_character"),
    "QuoteEscapeCharacter": Member("quote_escape_character"),
    "RecordDelimiter": Member("record_delimiter"),
}
CSV_OUTPUT = {
    "FieldDelimiter": Member("field_delimiter"),
    "QuoteCharacter": Member("quote_character"),
    "QuoteEscapeCharacter": Member("quote_escape_character"),
    "QuoteFields": Member("quote_fields"),
    "RecordDelimiter": Member("record_delimiter"),
}
SELECT = {
    "InputSerialization": nested("input_serialization", {"csv": nested("csv", CSV_INPUT)}),
    "ExpressionType": Member("expression_type"),
    "Expression": Member("expression"),
    "OutputSerialization": nested("output_serialization", {"csv": nested("csv", CSV_OUTPUT)}),
}
JOB = {
    "Action": Member("action", ACTION),
    "ArchiveId": Member("archive_id"),
    "ArchiveSHA256TreeHash": Member("archive_sha256_tree_hash"),
    "ArchiveSizeInBytes": Member("archive_size_in_bytes"),
    "Completed": Member("completed"),
    "CompletionDate": Member("completion_date", DATE),
    "CreationDate": Member("creation_date", DATE),
    "InventoryRetrievalParameters": nested("inventory_retrieval_parameters", INVENTORY_RETRIEVAL),
    "InventorySizeInBytes": Member("inventory_size_in_bytes"),
    "JobDescription": Member("job_description"),
    "JobId": Member("job_id"),
    "JobOutputPath": Member("job_output_path"),
    "OutputLocation": nested("output_location", {"S3": nested("s3", S3)}),
    "RetrievalByteRange": Member("retrieval_byte_range"),
    "SHA256TreeHash": Member("sha256_tree_hash"),
    "SNSTopic": Member("sns_topic"),
    "SelectParameters": nested("select_parameters", SELECT),
    "StatusCode": Member("status_code", STATUS_CODE),
    "StatusMessage": Member("status_message"),
    "Tier": Member("tier", TIER),
    "VaultARN": Member("vault_arn"),
}


def expected(table, document):
    """What the message must hold, for a description as boto3 gives it (boto3 leaves out what is null)."""
    unknown = set(document) - set(table)
    assert not unknown, f"the table does not know {sorted(unknown)}"
    return {table[name].field: table[name].convert(value) for name, value in document.items()}


def actual(message):
    """What the message holds: every field that is set, in the terms of `expected`."""
    return {field.name: _value(field, value) for field, value in message.ListFields()}


def _value(field, value):
    if field.message_type and field.message_type.GetOptions().map_entry:
        return dict(value)
    if field.is_repeated:
        return [actual(item) for item in value]
    if isinstance(value, Timestamp):
        return datetime.fromisoformat(value.ToJsonString())
    if field.enum_type:
        return field.enum_type.values_by_number[value].name
    return actual(value) if field.message_type else value
