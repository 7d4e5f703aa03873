"""`glacier-gateway describe`, read by Google's JSON parser and compared with what a stub gets."""

import subprocess
import tempfile

import pytest
from glacier.jobs.v1 import job_service_pb2 as pb
from google.protobuf import json_format

from process import GATEWAY, aws_environment


@pytest.fixture
def describe(gateway):
    """Runs the command against the gateway."""

    def run(*words):
        with tempfile.TemporaryDirectory() as home:
            return subprocess.run(
                [GATEWAY, "describe", *words, "--target", f"http://{gateway.address}"],
                env=aws_environment(home),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=30,
            )

    return run


@pytest.mark.parametrize("job", ["job", "-starts-with-a-dash"])
def test_describe_prints_the_answer_as_protobuf_json_with_our_names(describe, stub, job):
    result = describe("vault", job, "--max-age", "60s")
    assert result.returncode == 0, result.stderr

    answer = stub.DescribeJob(pb.DescribeJobRequest(vault_name="vault", job_id=job), timeout=10)
    assert json_format.Parse(result.stdout, pb.DescribeJobResponse()) == answer
    assert '"creation_date"' in result.stdout
    assert "cache-status" in result.stderr and "age" in result.stderr


def test_describe_says_why_it_failed(describe):
    result = describe("..", "job")
    assert result.returncode not in (0, None)
    assert result.stdout == ""
    assert "INVALID_REQUEST" in result.stderr and "vault_name" in result.stderr
