"""With grpcio, replicas are replaced in the middle of a load, and no call fails. By hand, ROUNDS=20 makes twenty of it."""

import contextlib
import os
import socket
import threading
import time

import grpc
from glacier.jobs.v1 import job_service_pb2 as pb
from glacier.jobs.v1 import job_service_pb2_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from process import running_gateway

QUESTION = pb.DescribeJobRequest(vault_name="vault", job_id="job")
CALLERS = 8
PATIENCE = 20
CALM = ("--log", "warn,glacier_gateway::commands::serve=info,glacier_gateway::app=info")


def free_addresses(count):
    """Addresses that nobody listens on."""
    with contextlib.ExitStack() as held:
        listeners = [held.enter_context(contextlib.closing(socket.create_server(("127.0.0.1", 0)))) for _ in range(count)]
        return ["127.0.0.1:%d" % listener.getsockname()[1] for listener in listeners]


def wait_until_ready(address):
    """Returns once the replica says that it serves."""
    with grpc.insecure_channel(address) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=PATIENCE)
        for news in watch:
            if news.status == health_pb2.HealthCheckResponse.SERVING:
                return
    raise AssertionError("never ready")


def test_no_call_fails_while_replicas_are_replaced(upstream):
    """P1."""
    rounds = int(os.environ.get("ROUNDS", "2"))
    addresses = free_addresses(2)
    made, failures, stop = [0] * CALLERS, [], threading.Event()

    @contextlib.contextmanager
    def replica(number):
        address = addresses[number % 2]
        with running_gateway(upstream.url, *CALM, listen=address, lame_duck="300ms") as gateway:
            wait_until_ready(address)
            yield gateway

    def call(caller):
        # A connection of its own; when it is told to go away, the other address is tried, too. Made of both addresses,
        # the authority would be none that HTTP/2 allows.
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.default_authority", "gateway")]
        with grpc.insecure_channel("ipv4:" + ",".join(addresses), options) as channel:
            stub = job_service_pb2_grpc.JobServiceStub(channel)
            while not stop.is_set():
                # Many at once, as grpcio does best.
                for call in [stub.DescribeJob.future(QUESTION, timeout=PATIENCE) for _ in range(25)]:
                    try:
                        call.result()
                        made[caller] += 1
                    except grpc.RpcError as error:
                        failures.append(error)

    callers = [threading.Thread(target=call, args=(caller,)) for caller in range(CALLERS)]
    started = time.monotonic()
    serving = contextlib.ExitStack()
    try:
        serving.enter_context(replica(0))
        for caller in callers:
            caller.start()
        for number in range(1, rounds + 1):
            enough = sum(made) + 1000
            while sum(made) < enough and not failures:
                time.sleep(0.01)
            following = contextlib.ExitStack()
            following.enter_context(replica(number))
            before, serving = serving, following
            # SIGTERM, and the exit code must be 0.
            before.close()
    finally:
        stop.set()
        for caller in callers:
            if caller.ident:
                caller.join()
        serving.close()
    print(f"{rounds} replicas replaced, {sum(made)} calls, {sum(made) / (time.monotonic() - started):.0f} a second")
    assert not failures, (len(failures), failures[:3])
