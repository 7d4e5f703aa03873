"""What the tests share: a prepared Glacier, the gateway before it, a stub to call it, and the logs of what failed."""

import grpc
import pytest
from glacier.jobs.v1 import job_service_pb2_grpc

from process import LoggedProcess, running_gateway
from upstream import PreparedGlacier


@pytest.fixture
def upstream():
    """A Glacier with prepared answers."""
    glacier = PreparedGlacier()
    yield glacier
    glacier.close()


@pytest.fixture
def gateway(upstream):
    """A gateway before `upstream`. It must end with exit code 0."""
    with running_gateway(upstream.url) as process:
        yield process
        # What a test still holds would keep the gateway from ending in time.
        upstream.release()


@pytest.fixture
def channel(gateway):
    """A gRPC channel to the gateway."""
    with grpc.insecure_channel(gateway.address) as channel:
        yield channel


@pytest.fixture
def stub(channel):
    """The stub that grpcio-tools generated from our proto."""
    return job_service_pb2_grpc.JobServiceStub(channel)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport():
    """Adds the output of every process that is still running to the report of a failure."""
    outcome = yield
    report = outcome.get_result()
    if report.failed:
        report.sections += [(f"output of {process.name}", process.log) for process in LoggedProcess.running]
