"""grpcurl without a proto file: what it lists, describes, calls and decodes, it knows from the gateway's reflection."""

import json
import subprocess

import grpc
import pytest
from glacier.jobs.v1 import job_service_pb2 as pb
from google.protobuf import json_format
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo
from google.rpc.status_pb2 import Status

from process import running_gateway

METHOD = "glacier.jobs.v1.JobService/DescribeJob"
# grpcurl's exit code for a failed call is this plus the number of the status.
CALL_FAILED = 64


def run_grpcurl(address, *words, options=()):
    """Runs grpcurl; the address goes between `options` and `words`."""
    return subprocess.run(
        ["grpcurl", "-plaintext", "-max-time", "10", *options, address, *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
    )


@pytest.fixture
def grpcurl(gateway):
    """Runs grpcurl against the gateway."""
    return lambda *words, options=(): run_grpcurl(gateway.address, *words, options=options)


def printed(result):
    """What a successful grpcurl printed."""
    assert result.returncode == 0, result.stderr
    return result.stdout


def data(**fields):
    """The option that gives a request."""
    return ["-d", json.dumps(fields)]


def test_list_names_the_services(grpcurl):
    services = set(printed(grpcurl("list")).split())
    assert {"glacier.jobs.v1.JobService", "grpc.health.v1.Health"} <= services
    assert printed(grpcurl("list", "glacier.jobs.v1.JobService")).split() == ["glacier.jobs.v1.JobService.DescribeJob"]


def test_list_says_so_where_there_is_no_reflection(upstream):
    # It said "server closed the stream without sending trailers".
    with running_gateway(upstream.url, "--reflection", "false", "--health-listen", "127.0.0.1:0") as gateway:
        for address in [gateway.address, gateway.health_address]:
            result = run_grpcurl(address, "list")
            assert result.returncode != 0
            assert "server does not support the reflection API" in result.stderr
            assert "trailers" not in result.stderr


def test_describe_shows_the_call_and_what_it_promises(grpcurl):
    service = printed(grpcurl("describe", "glacier.jobs.v1.JobService"))
    assert "rpc DescribeJob ( .glacier.jobs.v1.DescribeJobRequest ) returns ( .glacier.jobs.v1.DescribeJobResponse )" in service
    assert "idempotency_level = NO_SIDE_EFFECTS" in service


@pytest.mark.parametrize(
    "symbol",
    [
        "glacier.jobs.v1.DescribeJobRequest",
        "glacier.jobs.v1.GlacierJobDescription",
        "google.protobuf.Duration",
        "google.rpc.ErrorInfo",
        "google.rpc.BadRequest",
        "google.rpc.RetryInfo",
        "google.rpc.ResourceInfo",
        "grpc.health.v1.Health",
    ],
)
def test_describe_knows(grpcurl, symbol):
    assert symbol.rpartition(".")[2] in printed(grpcurl("describe", symbol))


def test_a_call_by_reflection_alone(grpcurl, stub):
    shown = printed(grpcurl(METHOD, options=data(vault_name="vault", job_id="-job", max_age="60s")))

    answer = stub.DescribeJob(pb.DescribeJobRequest(vault_name="vault", job_id="-job"), timeout=10)
    assert json_format.Parse(shown, pb.DescribeJobResponse()) == answer


def test_a_call_shows_where_the_answer_came_from(grpcurl):
    shown = printed(grpcurl(METHOD, options=["-v", "-H", "x-request-id: interop-2", *data(vault_name="vault", job_id="job")]))
    headers = shown.partition("Response headers received:")[2].partition("\n\n")[0].split("\n")

    assert "x-request-id: interop-2" in headers
    assert any(header.startswith("cache-status: glacier-gateway; fwd=miss") for header in headers)
    assert "age: 0" in headers


def test_the_details_of_an_error_are_decoded(grpcurl):
    result = grpcurl(METHOD, options=["-format-error", *data(vault_name="a/b", job_id="")])
    assert result.returncode == CALL_FAILED + grpc.StatusCode.INVALID_ARGUMENT.value[0], result.stderr

    # What grpcurl cannot decode it prints as bytes, which the parser does not take.
    status = json_format.Parse(result.stderr, Status())
    details = {detail.TypeName(): detail for detail in status.details}
    info, request = ErrorInfo(), BadRequest()
    assert details["google.rpc.ErrorInfo"].Unpack(info) and details["google.rpc.BadRequest"].Unpack(request)
    assert (info.domain, info.reason) == ("glacier-gateway", "INVALID_REQUEST")
    assert [violation.field for violation in request.field_violations] == ["vault_name", "job_id"]


def test_the_details_of_an_error_are_readable_as_printed(grpcurl):
    result = grpcurl(METHOD, options=data(vault_name="vault", job_id="a b"))
    for words in ["Code: InvalidArgument", "google.rpc.ErrorInfo", "INVALID_REQUEST", "google.rpc.BadRequest", '"job_id"']:
        assert words in result.stderr


@pytest.mark.parametrize("service", ["", "glacier.jobs.v1.JobService", "liveness", "readiness"])
def test_health_check(grpcurl, service):
    answer = json.loads(printed(grpcurl("grpc.health.v1.Health/Check", options=data(service=service))))
    assert answer == {"status": "SERVING"}
