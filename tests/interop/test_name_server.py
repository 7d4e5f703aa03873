"""A name server that never answers does not hold up the end of the process."""

import contextlib
import shutil
import socket
import subprocess
import time

import grpc
import pytest
from glacier.jobs.v1 import job_service_pb2 as pb
from glacier.jobs.v1 import job_service_pb2_grpc

from process import STOP_SECONDS, running_gateway

# On loopback, and nobody's.
NAME_SERVER = "127.0.0.99"
# The C library waits as long as it can be told to: two minutes and a half.
RESOLV_CONF = f"nameserver {NAME_SERVER}\noptions timeout:30 attempts:5\n"


@pytest.fixture
def name_server():
    """It hears questions, and answers none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        try:
            server.bind((NAME_SERVER, 53))
        except OSError as error:
            pytest.skip(f"nobody may be a name server here: {error}")
        server.settimeout(10)
        yield server


@pytest.fixture
def with_name_server(tmp_path):
    """A command that runs another where the name server is the one of this test, in a mount namespace of its own."""
    configuration = tmp_path / "resolv.conf"
    configuration.write_text(RESOLV_CONF)
    bind = f'mount --bind {configuration} /etc/resolv.conf && exec "$@"'
    prefix = [shutil.which("unshare") or "unshare", "--mount", "sh", "-c", bind, "sh"]
    with contextlib.suppress(OSError):
        if subprocess.run([*prefix, "cat", "/etc/resolv.conf"], capture_output=True, text=True).stdout == RESOLV_CONF:
            return prefix
    pytest.skip("no mount namespace may be made here")


def test_a_name_server_that_hangs_does_not_hold_up_the_end(name_server, with_name_server):
    """U11, P2."""
    plaintext = ("--plaintext-endpoint", "true")
    with running_gateway("http://glacier.name-server.test:80", *plaintext, prefix=with_name_server) as gateway:
        with grpc.insecure_channel(gateway.address) as channel, pytest.raises(grpc.RpcError) as error:
            stub = job_service_pb2_grpc.JobServiceStub(channel)
            stub.DescribeJob(pb.DescribeJobRequest(vault_name="vault", job_id="job"), timeout=2)
        assert error.value.code() in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE)
        assert b"name-server" in name_server.recv(512), "it asked"
        asked_to_stop = time.monotonic()
    # With exit code 0, as `running_gateway` has seen. The look-up would go on for minutes.
    assert time.monotonic() - asked_to_stop < STOP_SECONDS
