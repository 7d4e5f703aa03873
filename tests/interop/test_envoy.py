"""`deploy/envoy/envoy.yaml` in a real Envoy before three replicas that share one Glacier.

What must hold: replicas can be replaced one by one under load, or crash, and no call fails; three replicas behind the hash
ask Glacier no more than one replica would; and neither many callers nor a hostile one have Envoy fail the calls of others.
"""

import contextlib
import json
import os
import struct
import subprocess
import time
import urllib.request
from pathlib import Path

import grpc
import pytest
import yaml
from glacier.jobs.v1 import job_service_pb2 as pb
from glacier.jobs.v1 import job_service_pb2_grpc

from process import START_SECONDS, free_addresses, running, running_gateway
from upstream import PreparedGlacier, fails
from wire import DATA, END_HEADERS, END_STREAM, HEADERS, RST_STREAM, Wire, frame, message

ROOT = Path(__file__).parents[2]
CONFIGURATION = ROOT / "deploy/envoy/envoy.yaml"
REPLICAS = 3
CALLS_PER_SECOND = 2000
# Fifteen seconds of it: 3,000 misses and 27,000 hits.
COUNTED_CALLS = 30_000
BETWEEN_REPLACEMENTS_SECONDS = 2
# On as many connections as there can be calls on one; more than the 1,024 that Envoy would let wait by default.
CONNECTIONS, CALLS_ON_EACH = 10, 200
# What one may do in a second that has a machine of its own. Envoy throws each connection out after 500 calls.
HOSTILE_CONNECTIONS, RESET_ON_EACH = 60, 2000
CANCEL = 8


@pytest.fixture(scope="module")
def load(tmp_path_factory):
    """Runs the load client, built from `load/` with the versions that its go.sum pins."""
    binary = tmp_path_factory.mktemp("load") / "load"
    source = Path(__file__).with_name("load")
    subprocess.run(["go", "build", "-trimpath", "-mod=readonly", "-o", binary, "."], cwd=source, check=True)

    @contextlib.contextmanager
    def running_load(address, *flags):
        argv = [binary, "-target", address, "-rate", str(CALLS_PER_SECOND), *flags]
        process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        report = {}
        try:
            yield report
            # Closes the standard input: the load ends when it has made its calls, or now.
            report |= json.loads(process.communicate(timeout=60)[0])
            print(json.dumps(report))
        finally:
            process.kill()
            process.wait()

    return running_load


@pytest.fixture(scope="module")
def descriptor_set(tmp_path_factory):
    """What envoy.yaml's first comment says to make."""
    path = tmp_path_factory.mktemp("descriptor") / "job_service.binpb"
    command = ["python", "-m", "grpc_tools.protoc", "-I", str(ROOT / "proto"), "--include_imports"]
    command += [f"--descriptor_set_out={path}", "glacier/jobs/v1/job_service.proto"]
    subprocess.run(command, check=True)
    return path


@contextlib.contextmanager
def running_envoy(replicas, descriptor_set, folder):
    """Envoy with our configuration, in which only addresses and the descriptor's path are others."""
    listener, admin = free_addresses(2)
    configuration = yaml.safe_load(CONFIGURATION.read_text())
    configuration["admin"]["address"] = socket_address(admin)
    resources = configuration["static_resources"]
    resources["listeners"][0]["address"] = socket_address(listener)
    for http_filter in resources["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"]:
        if "descriptor_set" in http_filter["typed_config"]:
            http_filter["typed_config"]["descriptor_set"]["filename"] = str(descriptor_set)
    endpoints = [{"endpoint": {"address": socket_address(replica)}} for replica in replicas]
    resources["clusters"][0]["load_assignment"]["endpoints"] = [{"lb_endpoints": endpoints}]
    path = folder / "envoy.yaml"
    path.write_text(yaml.safe_dump(configuration))

    argv = ["envoy", "-c", str(path), "--use-dynamic-base-id", "--concurrency", "2", "--log-level", "warning"]
    with running("envoy", argv, {"PATH": os.environ["PATH"]}) as process:
        process.address, process.admin_address = listener, admin
        wait_until_healthy(process, len(replicas))
        yield process


def socket_address(address):
    host, port = address.split(":")
    return {"socket_address": {"address": host, "port_value": int(port)}}


def statistic(envoy, name):
    """The value of one of Envoy's statistics; None before there is an Envoy that answers."""
    try:
        with urllib.request.urlopen(f"http://{envoy.admin_address}/stats?filter=^{name}$", timeout=5) as answer:
            return int(answer.read().decode().split(": ")[1])
    except (OSError, IndexError):
        return None


def wait_until_healthy(envoy, replicas):
    """Returns once Envoy believes that so many replicas are well."""
    deadline = time.monotonic() + START_SECONDS
    while (healthy := statistic(envoy, "cluster.gateway.membership_healthy")) != replicas:
        assert time.monotonic() < deadline, f"{healthy} of {replicas} replicas are healthy; Envoy says:\n{envoy.log}"
        time.sleep(0.1)


@contextlib.contextmanager
def gateways_behind_envoy(glacier, count, descriptor_set, folder):
    """Envoy, and what ends and starts the replica of a number."""
    with contextlib.ExitStack() as stack:
        replicas = [stack.enter_context(contextlib.ExitStack()) for _ in range(count)]
        addresses = free_addresses(count)

        def start(number):
            replicas[number].enter_context(running_gateway(glacier.url, listen=addresses[number], lame_duck="5s"))

        for number in range(count):
            start(number)
        envoy = stack.enter_context(running_envoy(addresses, descriptor_set, folder))
        yield envoy, replicas, start


@pytest.fixture
def glacier():
    """The one Glacier of all replicas."""
    prepared = PreparedGlacier()
    yield prepared
    prepared.close()


# Each of the four gateways has its lame duck and its drain at the end.
@pytest.mark.timeout(240)
def test_three_replicas_ask_glacier_no_more_than_one_would(load, descriptor_set, tmp_path):
    asked = {}
    for count in (1, REPLICAS):
        glacier = PreparedGlacier()
        with gateways_behind_envoy(glacier, count, descriptor_set, tmp_path) as (envoy, _, _):
            with load(envoy.address, "-calls", str(COUNTED_CALLS)) as report:
                pass
        assert report["codes"] == {"OK": COUNTED_CALLS}, report
        asked[count] = len(glacier.requests)
        glacier.close()

    assert asked[1] >= report["jobs"]
    assert asked[REPLICAS] <= 1.1 * asked[1], f"Glacier was asked {asked}"


@pytest.mark.timeout(180)
def test_no_call_fails_while_each_replica_in_turn_is_ended_and_replaced(load, glacier, descriptor_set, tmp_path):
    with gateways_behind_envoy(glacier, REPLICAS, descriptor_set, tmp_path) as (envoy, replicas, start):
        with load(envoy.address) as report:
            time.sleep(BETWEEN_REPLACEMENTS_SECONDS)
            for number in range(REPLICAS):
                replicas[number].close()
                time.sleep(BETWEEN_REPLACEMENTS_SECONDS)
                start(number)
                wait_until_healthy(envoy, REPLICAS)
                time.sleep(BETWEEN_REPLACEMENTS_SECONDS)
        retried = statistic(envoy, "cluster.gateway.upstream_rq_retry")

    print(f"{retried} retries by Envoy; Glacier was asked {len(glacier.requests)} times about {report['jobs']} jobs")
    assert report["codes"] == {"OK": report["calls"]}, report
    # The load is worth the name: the machine kept at least half of the rate.
    assert report["calls"] >= report["seconds"] * CALLS_PER_SECOND / 2, report


def test_what_one_replica_cannot_answer_is_asked_once_more_of_another(glacier, descriptor_set, tmp_path):
    unreachable = PreparedGlacier()
    unreachable.answer = lambda path: fails(503, "ServiceUnavailableException", "on purpose")
    addresses = free_addresses(2)
    jobs = [f"job-{number}" for number in range(40)]
    with contextlib.ExitStack() as stack:
        # Its own health does not depend on Glacier's, so it stays in the ring.
        stack.enter_context(running_gateway(unreachable.url, "--max-attempts", "1", listen=addresses[0]))
        stack.enter_context(running_gateway(glacier.url, listen=addresses[1]))
        envoy = stack.enter_context(running_envoy(addresses, descriptor_set, tmp_path))
        with grpc.insecure_channel(envoy.address) as channel:
            stub = job_service_pb2_grpc.JobServiceStub(channel)
            answered = [stub.DescribeJob(pb.DescribeJobRequest(vault_name="vault", job_id=job), timeout=10) for job in jobs]
        retried, succeeded = (statistic(envoy, f"cluster.gateway.upstream_rq_retry{what}") for what in ("", "_success"))
    refused = len(unreachable.requests)
    unreachable.close()

    assert [answer.job.job_id for answer in answered] == jobs
    # About half of the jobs are the first replica's; each of them is retried, and one retry is enough.
    assert 5 <= refused <= 35, refused
    assert retried == succeeded == refused
    assert len(glacier.requests) == len(jobs)


def test_no_call_fails_when_a_replica_crashes(load, glacier, descriptor_set, tmp_path):
    with contextlib.ExitStack() as stack:
        replicas = [stack.enter_context(running_gateway(glacier.url)) for _ in range(REPLICAS)]
        envoy = stack.enter_context(running_envoy([replica.address for replica in replicas], descriptor_set, tmp_path))
        with load(envoy.address) as report:
            time.sleep(BETWEEN_REPLACEMENTS_SECONDS)
            replicas[0].crash()
            time.sleep(BETWEEN_REPLACEMENTS_SECONDS)
        retried = statistic(envoy, "cluster.gateway.upstream_rq_retry")

    print(f"{retried} retries by Envoy")
    assert report["codes"] == {"OK": report["calls"]}, report
    assert retried, "nothing was under way"


def test_many_more_callers_than_envoy_expects_may_wait_for_one_answer(glacier, descriptor_set, tmp_path):
    glacier.hold()
    callers = CONNECTIONS * CALLS_ON_EACH
    with contextlib.ExitStack() as stack:
        replica = stack.enter_context(running_gateway(glacier.url))
        envoy = stack.enter_context(running_envoy([replica.address], descriptor_set, tmp_path))
        answers = []
        for _ in range(CONNECTIONS):
            own = [("grpc.use_local_subchannel_pool", 1)]
            stub = job_service_pb2_grpc.JobServiceStub(stack.enter_context(grpc.insecure_channel(envoy.address, own)))
            request = pb.DescribeJobRequest(vault_name="vault", job_id="job")
            answers += [stub.DescribeJob.future(request, timeout=10) for _ in range(CALLS_ON_EACH)]
        while statistic(envoy, "cluster.gateway.upstream_rq_active") < callers and not any(a.done() for a in answers):
            time.sleep(0.05)
        glacier.release()
        codes = {answer.code() for answer in answers}

    assert codes == {grpc.StatusCode.OK}
    assert len(glacier.requests) == 1


def test_a_caller_who_resets_its_calls_does_not_have_those_of_others_fail(load, glacier, descriptor_set, tmp_path):
    with running_gateway(glacier.url) as replica, running_envoy([replica.address], descriptor_set, tmp_path) as envoy:
        with load(envoy.address, "-rate", "200") as report:
            time.sleep(1)
            for _ in range(HOSTILE_CONNECTIONS):
                ask_and_reset(envoy.address)
            # From a connection with too many resets the replica reads nothing more for a second, and then closes it.
            time.sleep(2)
        resets, closed = (statistic(envoy, f"cluster.gateway.upstream_{what}") for what in ("rq_tx_reset", "cx_destroy_remote"))

    assert report["codes"] == {"OK": report["calls"]}, report
    # One call of each connection gets through with those that came together with it.
    assert 0 < resets < 10 * HOSTILE_CONNECTIONS, resets
    assert closed == 0


def ask_and_reset(address):
    """Calls, each reset at once, until the connection is closed."""
    body = message(pb.DescribeJobRequest(vault_name="vault", job_id="job").SerializeToString())
    with Wire(address) as wire:
        first, block = wire.call(1, body), wire.block()
        calls = (
            frame(HEADERS, END_HEADERS, stream, block)
            + frame(DATA, END_STREAM, stream, body)
            + frame(RST_STREAM, 0, stream, struct.pack(">I", CANCEL))
            for stream in range(3, 2 * RESET_ON_EACH, 2)
        )
        wire.flood(first + b"".join(calls))
        for _ in wire.frames():
            pass
