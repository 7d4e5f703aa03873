"""Prometheus's own linter has nothing to say about what `/metrics` gives to whoever asks for nothing special."""

import subprocess
import urllib.request

import grpc
import pytest
from glacier.jobs.v1 import job_service_pb2, job_service_pb2_grpc

from process import running_gateway


def test_promtool_finds_nothing_to_improve(upstream):
    with running_gateway(upstream.url, admin_listen="127.0.0.1:0") as gateway:
        with grpc.insecure_channel(gateway.address) as channel:
            stub = job_service_pb2_grpc.JobServiceStub(channel)
            # A call that has failed, so that not everything is zero.
            with pytest.raises(grpc.RpcError):
                stub.DescribeJob(job_service_pb2.DescribeJobRequest(vault_name="..", job_id="job"), timeout=10)
        with urllib.request.urlopen(f"http://{gateway.admin_address}/metrics", timeout=10) as response:
            metrics = response.read()
    assert b'grpc_code="InvalidArgument"} 1\n' in metrics
    result = subprocess.run(["promtool", "check", "metrics"], input=metrics, capture_output=True, timeout=30)
    assert result.returncode == 0 and not result.stdout + result.stderr, (result.stdout + result.stderr).decode()
