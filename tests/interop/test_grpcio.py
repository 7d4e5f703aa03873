"""Stubs that grpcio-tools generated from our proto: an answer, errors with details, a deadline, a cancel."""

import json
import time

import grpc
import pytest
from glacier.jobs.v1 import job_service_pb2 as pb
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from upstream import CREATED, fails

SECRET_WORDS = "words of the upstream which are not for callers"


def request(**fields):
    """A valid request, with `fields` replaced."""
    return pb.DescribeJobRequest(**{"vault_name": "vault", "job_id": "job", **fields})


def details_of(error):
    """The details in grpc-status-details-bin by message name; grpcio-status checks that code and message agree."""
    status = rpc_status.from_call(error)
    assert status is not None, "grpc-status-details-bin is missing"
    details = {}
    for packed in status.details:
        name = packed.TypeName()
        message = getattr(error_details_pb2, name.removeprefix("google.rpc."))()
        assert packed.Unpack(message)
        details[name] = message
    return details


def metadata_of(error):
    """Every header and trailer of a failed call."""
    return dict([*(error.initial_metadata() or ()), *(error.trailing_metadata() or ())])


def test_an_answer_says_where_it_came_from_and_how_old_it_is(stub):
    first, first_call = stub.DescribeJob.with_call(request(), timeout=10, metadata=[("x-request-id", "interop-1")])
    second, second_call = stub.DescribeJob.with_call(request(), timeout=10)
    first_headers, second_headers = dict(first_call.initial_metadata()), dict(second_call.initial_metadata())

    assert first.job.job_id == "job"
    assert first.job.creation_date.ToJsonString() == CREATED
    assert first_headers["x-request-id"] == "interop-1"
    assert first_headers["cache-status"].startswith("glacier-gateway; fwd=miss")
    assert second == first
    assert second_headers["x-request-id"] not in ("", "interop-1")
    assert second_headers["cache-status"].startswith("glacier-gateway; hit")
    assert first_headers["age"].isdecimal() and second_headers["age"].isdecimal()


def test_gzip_is_one_option_of_the_client(stub, upstream):
    """D22."""
    plain = stub.DescribeJob(request(), timeout=10)
    assert stub.DescribeJob(request(), timeout=10, compression=grpc.Compression.Gzip) == plain
    assert len(upstream.requests) == 1

    with pytest.raises(grpc.RpcError) as raised:
        stub.DescribeJob(request(), timeout=10, compression=grpc.Compression.Deflate)
    assert raised.value.code() == grpc.StatusCode.UNIMPLEMENTED
    # grpcio keeps the header grpc-accept-encoding to itself.
    assert "supported are identity and gzip" in raised.value.details()


def test_a_malformed_request_names_every_bad_field(stub, upstream):
    with pytest.raises(grpc.RpcError) as raised:
        stub.DescribeJob(request(account_id="12", vault_name="..", job_id="a/b"), timeout=10)
    details = details_of(raised.value)

    assert raised.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert details["google.rpc.ErrorInfo"].domain == "glacier-gateway"
    assert details["google.rpc.ErrorInfo"].reason == "INVALID_REQUEST"
    violations = details["google.rpc.BadRequest"].field_violations
    assert [violation.field for violation in violations] == ["account_id", "vault_name", "job_id"]
    assert all(violation.description for violation in violations)
    assert "x-request-id" in metadata_of(raised.value)
    assert upstream.requests == []


@pytest.mark.parametrize(
    ("answer", "code", "reason", "detail"),
    [
        (
            fails(404, "ResourceNotFoundException", f"The job ID was not found: {SECRET_WORDS}"),
            grpc.StatusCode.NOT_FOUND,
            "JOB_NOT_FOUND",
            "google.rpc.ResourceInfo",
        ),
        (
            fails(404, "ResourceNotFoundException", f"Vault not found for ARN: {SECRET_WORDS}"),
            grpc.StatusCode.NOT_FOUND,
            "VAULT_NOT_FOUND",
            "google.rpc.ResourceInfo",
        ),
        (
            fails(403, "AccessDeniedException", SECRET_WORDS),
            grpc.StatusCode.PERMISSION_DENIED,
            "GLACIER_ACCESS_DENIED",
            "google.rpc.ErrorInfo",
        ),
        (
            fails(400, "ThrottlingException", SECRET_WORDS),
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            "GLACIER_THROTTLED",
            "google.rpc.RetryInfo",
        ),
    ],
    ids=["no such job", "no such vault", "access denied", "throttled"],
)
def test_an_error_of_glacier_has_details_and_keeps_glaciers_words_to_itself(stub, upstream, answer, code, reason, detail):
    upstream.answer = lambda path: answer

    with pytest.raises(grpc.RpcError) as raised:
        stub.DescribeJob(request(), timeout=10)
    details = details_of(raised.value)

    assert raised.value.code() == code
    assert details["google.rpc.ErrorInfo"].domain == "glacier-gateway"
    assert details["google.rpc.ErrorInfo"].reason == reason
    assert details["google.rpc.ErrorInfo"].metadata["glacier_code"] == json.loads(answer.body)["code"]
    assert detail in details
    assert ("grpc-retry-pushback-ms" in metadata_of(raised.value)) == ("google.rpc.RetryInfo" in details)
    assert SECRET_WORDS not in raised.value.details() + str(details)


def test_deadlines_are_kept_and_the_one_fetch_outlives_them(stub, upstream):
    upstream.hold()

    for _ in range(2):
        started = time.monotonic()
        with pytest.raises(grpc.RpcError) as raised:
            stub.DescribeJob(request(), timeout=0.5)
        waited = time.monotonic() - started

        assert raised.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        assert 0.4 < waited < 1.5
        # Whose timer was first, the client's or the gateway's, is chance; the gateway's own answer has a reason.
        if rpc_status.from_call(raised.value):
            assert details_of(raised.value)["google.rpc.ErrorInfo"].reason == "DEADLINE_EXCEEDED"

    upstream.release()
    assert stub.DescribeJob(request(), timeout=10).job.job_id == "job"
    assert len(upstream.requests) == 1


def test_a_cancelled_call_ends_at_once_and_its_fetch_serves_the_next(stub, upstream):
    upstream.hold()

    call = stub.DescribeJob.future(request(), timeout=10)
    upstream.wait_for_requests(1)
    assert call.cancel()

    assert call.code() == grpc.StatusCode.CANCELLED
    upstream.release()
    assert stub.DescribeJob(request(), timeout=10).job.job_id == "job"
    assert len(upstream.requests) == 1
