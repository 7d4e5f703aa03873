"""botocore recomputes the signature of every request that the gateway sends, and comes to the same one."""

from datetime import UTC, datetime, timedelta

import grpc
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from glacier.jobs.v1 import job_service_pb2 as pb
from glacier.jobs.v1 import job_service_pb2_grpc

from process import ACCESS_KEY, REGION, SECRET_KEY, running_gateway
from upstream import ACCOUNT

TOKEN = "IQoJb3JpZ2luX2VjEXAMPLE//////////wEaCXVzLWVhc3QtMSJHMEUCIQDx+a/b=="

# Legal names: everything that a signer or a URL library might read as more than a name.
NAMES = [
    ("-", "examplevault", "HkF9p6o7yjhFx-K3CGl6fuSm6VzW9T7esGQfco8nUXVYwS0jlb5gq1JZ55yHgt5vP54ZShjoQzQVVh7vEXAMPLEjobID"),
    ("", "vault", "job"),
    (ACCOUNT, "vault", "job-of-a-named-account"),
    ("-", "-vault", "-starts-with-a-dash"),
    ("-", "_vault", "_starts_with_an_underscore"),
    ("-", ".vault", "ends-with-a-dash-"),
    ("-", "vault.", "ends_with_an_underscore_"),
    ("-", "...", "three-dots"),
    ("-", "....", "four-dots"),
    ("-", "..vault", "two-dots-first"),
    ("-", "vault..", "two-dots-last"),
    ("-", "a..b", "two-dots-within"),
    ("-", ".-_", "-_-"),
    ("-", "-", "-"),
    ("-", "--", "--"),
    ("-", "_", "_"),
    ("-", "__", "__"),
    ("-", "0", "0"),
    ("-", "MixedCase.vault_1-x", "MixedCase-and_digits-0123456789"),
    ("-", "v" * 255, "j" * 256),
]


@pytest.mark.parametrize("token", [None, TOKEN], ids=["long-term credentials", "session token"])
def test_botocore_computes_the_same_signature(upstream, token):
    with running_gateway(upstream.url, token=token) as gateway, grpc.insecure_channel(gateway.address) as channel:
        stub = job_service_pb2_grpc.JobServiceStub(channel)
        for account, vault, job in NAMES:
            answer = stub.DescribeJob(pb.DescribeJobRequest(account_id=account, vault_name=vault, job_id=job), timeout=10)
            assert answer.job.job_id == job

    assert [request.path for request in upstream.requests] == [
        f"/{account or '-'}/vaults/{vault}/jobs/{job}" for account, vault, job in NAMES
    ]
    for request in upstream.requests:
        assert_signed(request, upstream.url, token)


def assert_signed(request, url, token):
    """The request carries what Glacier asks for, signs exactly that, and botocore agrees with the signature."""
    signed = ["host", "x-amz-date", "x-amz-glacier-version"] + (["x-amz-security-token"] if token else [])

    assert request.method == "GET"
    assert request.headers["Host"] == url.removeprefix("http://")
    assert request.headers["x-amz-glacier-version"] == "2012-06-01"
    assert request.headers["x-amz-security-token"] == token
    assert "x-amz-content-sha256" not in request.headers
    assert all(len(request.headers.get_all(name)) == 1 for name in [*signed, "authorization"])
    date = datetime.strptime(request.headers["x-amz-date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    assert abs(datetime.now(UTC) - date) < timedelta(minutes=1)
    assert request.headers["Authorization"] == authorization(request, url, signed, token)


def authorization(request, url, signed, token):
    """The Authorization header that botocore's signer gives a request with these headers, at the request's own time."""
    signer = SigV4Auth(Credentials(ACCESS_KEY, SECRET_KEY, token), "glacier", REGION)
    headers = {name: request.headers[name] for name in signed}
    replayed = AWSRequest(method=request.method, url=url + request.path, headers=headers)
    replayed.context["timestamp"] = request.headers["x-amz-date"]
    signature = signer.signature(signer.string_to_sign(replayed, signer.canonical_request(replayed)), replayed)
    return (
        f"AWS4-HMAC-SHA256 Credential={signer.scope(replayed)}, "
        f"SignedHeaders={signer.signed_headers(signer.headers_to_sign(replayed))}, Signature={signature}"
    )
