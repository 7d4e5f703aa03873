"""Nobody hears a secret: not who reads logs at trace level, not who scrapes, not who gets an error."""

import json
import subprocess
import urllib.request

import grpc
import pytest
from glacier.jobs.v1 import job_service_pb2, job_service_pb2_grpc

import canary
from certificates import Authority
from process import GATEWAY, REGION, START_SECONDS, running_gateway
from upstream import fails

TOKEN = "canary-token/" + "T" * 100
QUESTION = job_service_pb2.DescribeJobRequest(vault_name="vault", job_id="job")


def test_the_canary_sings(upstream):
    for spelling in canary.spellings(canary.SECRET_KEY):
        assert canary.said(f"before {spelling} after") == {canary.SECRET_KEY}
    assert canary.said("nothing") == set()
    canary.mark("a marked secret")
    assert canary.said("this is a marked secret") == {"a marked secret"}
    signature = "0123456789abcdef" * 4
    assert canary.said(f"of nobody: {signature}") == set() and canary.said(f"Signature={signature}")
    canary.mark_request({"Authorization": f"AWS4-HMAC-SHA256 Credential=c, Signature={signature}"})
    assert canary.said(f"of a request: {signature}") == {signature}
    key = Authority("canary").pair("canary").key
    for line in key.splitlines()[1:3]:
        assert line in canary.said(f"a line of a key: {line}")
    assert canary.said(json.dumps(key)) and canary.said("".join(key.splitlines()[1:-1]))


def test_no_secret_is_said_when_glacier_repeats_them_all(upstream):
    """P8."""
    # As Glacier does in the errors of its signature check.
    upstream.answer = lambda path: fails(
        403, "InvalidSignatureException", f"{canary.ACCESS_KEY} {canary.SECRET_KEY} {TOKEN} {upstream.requests[-1].headers}"
    )
    known = canary.signatures()
    with running_gateway(upstream.url, token=TOKEN, admin_listen="127.0.0.1:0") as gateway:
        with grpc.insecure_channel(gateway.address) as channel:
            stub = job_service_pb2_grpc.JobServiceStub(channel)
            with pytest.raises(grpc.RpcError) as error:
                stub.DescribeJob(QUESTION, timeout=10)
            told = f"{error.value} {error.value.initial_metadata()} {error.value.trailing_metadata()}"
        with urllib.request.urlopen(f"http://{gateway.admin_address}/metrics", timeout=10) as response:
            metrics = response.read().decode()
    assert all(f'"message":"{event}"' in gateway.log for event in ("call", "the fetch from glacier failed")), "it says what happened"
    assert canary.signatures() > known and canary.said(TOKEN), "they would be recognized"
    assert not canary.said(told) and not canary.said(metrics) and not canary.said(gateway.log)


def test_no_private_key_is_said_whatever_becomes_of_its_file(upstream, tmp_path):
    """P8."""
    servers, callers = Authority("servers"), Authority("callers")
    good, other, caller = servers.pair("localhost"), servers.pair("localhost"), callers.pair("spiffe://test/caller")
    files = {name: tmp_path / name for name in ("certificate", "key", "ca")}
    for name, content in (("certificate", good.certificate), ("key", good.key), ("ca", callers.certificate)):
        files[name].write_text(content)
    tls = ["--tls-certificate", files["certificate"], "--tls-key", files["key"], "--tls-client-ca", files["ca"]]
    identity = grpc.ssl_channel_credentials(servers.certificate.encode(), caller.key.encode(), caller.certificate.encode())
    with running_gateway(upstream.url, *map(str, tls)) as gateway:
        target = "localhost:" + gateway.address.rpartition(":")[2]
        with grpc.secure_channel(target, identity) as channel:
            job_service_pb2_grpc.JobServiceStub(channel).DescribeJob(QUESTION, timeout=10)
        # Another certificate's; then half of one, and one where a certificate belongs.
        files["key"].write_text(other.key)
        gateway.wait_for(lambda line: "is not the certificate's" in line, START_SECONDS)
        files["key"].write_text(good.key[: len(good.key) // 2])
        files["certificate"].write_text(good.key)
        gateway.wait_for(lambda line: "holds no certificate" in line, START_SECONDS)
    assert "spiffe://test/caller" in gateway.log, "it says much"
    for wrong in (["--tls-certificate", files["certificate"], "--tls-key", files["key"]], tls):
        command = [GATEWAY, "serve", "--check-config", "--region", REGION, *wrong]
        checked = subprocess.run(command, capture_output=True, text=True, env={}, timeout=START_SECONDS)
        assert checked.returncode == 2 and not canary.said(checked.stdout + checked.stderr)
