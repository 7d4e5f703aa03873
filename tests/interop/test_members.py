"""boto3 and the gateway read the same Glacier documents, of every kind of job, and understand the same."""

import boto3
import pytest
from glacier.jobs.v1 import job_service_pb2 as pb

from mapping import JOB, actual, expected
from process import ACCESS_KEY, REGION, SECRET_KEY
from upstream import COMPLETED, CREATED, archive_job, describes

SUCCEEDED = archive_job("vault", "succeeded")
FAILED = archive_job(
    "vault",
    "failed",
    ArchiveSizeInBytes=0,
    JobDescription="übergroß, 二つ\nlines",
    RetrievalByteRange="1048576-3145727",
    SHA256TreeHash=None,
    SNSTopic="arn:aws:sns:us-east-1:123456789012:ready",
    StatusCode="Failed",
    StatusMessage="The job failed: out of luck",
    Tier="Bulk",
)
RUNNING = archive_job(
    "vault", "running", Completed=False, CompletionDate=None, StatusCode="InProgress", StatusMessage=None, Tier="Expedited"
)
# Written with what it has only, where the others say null.
INVENTORY = {
    "Action": "InventoryRetrieval",
    "Completed": True,
    "CompletionDate": COMPLETED,
    "CreationDate": CREATED,
    "InventoryRetrievalParameters": {
        "EndDate": "2026-04-01T00:00:00Z",
        "Format": "CSV",
        "Limit": "10000",
        "Marker": "next-part",
        "StartDate": "2026-03-01T00:00:00Z",
    },
    "InventorySizeInBytes": 9007199254740993,
    "JobId": "inventory",
    "StatusCode": "Succeeded",
    "StatusMessage": "Succeeded",
    "VaultARN": "arn:aws:glacier:us-east-1:123456789012:vaults/vault",
}
SELECT = archive_job(
    "vault",
    "select",
    Action="Select",
    ArchiveSHA256TreeHash=None,
    ArchiveSizeInBytes=None,
    JobOutputPath="results/select",
    OutputLocation={
        "S3": {
            "BucketName": "results",
            "Prefix": "p/",
            "Encryption": {"EncryptionType": "aws:kms", "KMSKeyId": "key-1", "KMSContext": '{"a":"b"}'},
            "CannedACL": "private",
            "AccessControlList": [
                {"Grantee": {"Type": "CanonicalUser", "DisplayName": "Ada", "ID": "f00"}, "Permission": "READ"},
                {"Grantee": {"Type": "Group", "URI": "urn:group"}, "Permission": "FULL_CONTROL"},
                {"Grantee": {"Type": "AmazonCustomerByEmail", "EmailAddress": "ada@example.com"}, "Permission": "WRITE"},
            ],
            "Tagging": {"team": "archive", "empty": ""},
            "UserMetadata": {"purpose": "audit"},
            "StorageClass": "STANDARD_IA",
        }
    },
    RetrievalByteRange=None,
    SHA256TreeHash=None,
    SelectParameters={
        "InputSerialization": {
            "csv": {
                "Comments": "#",
                "FieldDelimiter": ",",
                "FileHeaderInfo": "USE",
                "QuoteCharacter": '"',
                "QuoteEscapeCharacter": "\\",
                "RecordDelimiter": "\n",
            }
        },
        "ExpressionType": "SQL",
        "Expression": "SELECT s._1 FROM archive s",
        "OutputSerialization": {
            "csv": {
                "FieldDelimiter": ";",
                "QuoteCharacter": "'",
                "QuoteEscapeCharacter": "\\",
                "QuoteFields": "ASNEEDED",
                "RecordDelimiter": "\r\n",
            }
        },
    },
)


@pytest.fixture
def glacier(upstream):
    """boto3's client of the same upstream."""
    return boto3.client(
        "glacier",
        endpoint_url=upstream.url,
        region_name=REGION,
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
    )


@pytest.mark.parametrize("document", [SUCCEEDED, RUNNING, FAILED, INVENTORY, SELECT], ids=lambda document: document["JobId"])
def test_boto3_and_the_gateway_understand_a_document_alike(glacier, upstream, stub, document):
    upstream.answer = lambda path: describes(document)

    from_boto3 = glacier.describe_job(vaultName="vault", jobId=document["JobId"])
    from_gateway = stub.DescribeJob(pb.DescribeJobRequest(vault_name="vault", job_id=document["JobId"]), timeout=10)

    del from_boto3["ResponseMetadata"]
    assert actual(from_gateway.job) == expected(JOB, from_boto3)


def test_the_table_knows_every_member_of_glaciers_model_and_every_field_of_the_proto(glacier):
    description = glacier.meta.service_model.shape_for("GlacierJobDescription")
    assert_complete(JOB, description, pb.GlacierJobDescription.DESCRIPTOR, ours={"unrecognized_values"})


def assert_complete(table, shape, descriptor, ours=frozenset()):
    """`table` names each member of a botocore shape and each field of our message except `ours`, at every depth."""
    assert set(table) == set(shape.members), shape.name
    assert {member.field for member in table.values()} == set(descriptor.fields_by_name) - ours, descriptor.full_name
    for name, member in table.items():
        if member.table is not None:
            inner = shape.members[name].member if member.many else shape.members[name]
            assert_complete(member.table, inner, descriptor.fields_by_name[member.field].message_type)
