"""Nobody hears a secret: not who reads logs at trace level, not who scrapes, not who gets an error."""

import urllib.request

import grpc
import pytest
from glacier.jobs.v1 import job_service_pb2, job_service_pb2_grpc

import canary
from process import running_gateway
from upstream import fails

TOKEN = "canary-token/" + "T" * 100


def test_the_canary_sings():
    for spelling in canary.spellings(canary.SECRET_KEY):
        assert canary.said(f"before {spelling} after") == {canary.SECRET_KEY}
    assert canary.said("nothing", ["secret"]) == set() and canary.said("a secret", ["secret"]) == {"secret"}


def test_no_secret_is_said_when_glacier_repeats_them_all(upstream):
    # As Glacier does in the errors of its signature check.
    upstream.answer = lambda path: fails(
        403, "InvalidSignatureException", f"{canary.ACCESS_KEY} {canary.SECRET_KEY} {TOKEN} {upstream.requests[-1].headers}"
    )
    with running_gateway(upstream.url, token=TOKEN, admin_listen="127.0.0.1:0") as gateway:
        with grpc.insecure_channel(gateway.address) as channel:
            stub = job_service_pb2_grpc.JobServiceStub(channel)
            with pytest.raises(grpc.RpcError) as error:
                stub.DescribeJob(job_service_pb2.DescribeJobRequest(vault_name="vault", job_id="job"), timeout=10)
            told = f"{error.value} {error.value.initial_metadata()} {error.value.trailing_metadata()}"
        with urllib.request.urlopen(f"http://{gateway.admin_address}/metrics", timeout=10) as response:
            metrics = response.read().decode()
    assert all(f'"message":"{event}"' in gateway.log for event in ("call", "the fetch from glacier failed")), "it says what happened"
    secrets = [TOKEN, *canary.signatures(upstream.requests)]
    assert len(secrets) >= 3
    assert not canary.said(told, secrets) and not canary.said(metrics, secrets) and not canary.said(gateway.log, secrets)
