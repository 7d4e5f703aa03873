"""The standard services through Google's own clients: health (Check, Watch) and reflection v1alpha."""

import grpc
import pytest
from glacier.jobs.v1 import job_service_pb2
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from process import running_gateway

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


@pytest.fixture
def health(channel):
    """grpcio's health stub."""
    return health_pb2_grpc.HealthStub(channel)


def check(service):
    """A question about the health of `service`."""
    return health_pb2.HealthCheckRequest(service=service)


@pytest.mark.parametrize("service", ["", "glacier.jobs.v1.JobService", "liveness", "readiness"])
def test_every_name_is_serving(health, service):
    assert health.Check(check(service), timeout=10).status == SERVING
    watch = health.Watch(check(service), timeout=10)
    assert next(watch).status == SERVING
    watch.cancel()


def test_check_does_not_find_an_unknown_name(health):
    with pytest.raises(grpc.RpcError) as raised:
        health.Check(check("no.such.Service"), timeout=10)
    assert raised.value.code() == grpc.StatusCode.NOT_FOUND


def test_watch_keeps_an_unknown_name_open(health):
    watch = health.Watch(check("no.such.Service"), timeout=10)
    assert next(watch).status == SERVICE_UNKNOWN

    # An ended stream would have been reported on this connection before a later call's answer.
    health.Check(check(""), timeout=10)
    assert watch.is_active()
    watch.cancel()


def test_watch_hears_of_a_shutdown_before_the_connection_goes(upstream):
    with running_gateway(upstream.url, lame_duck="1s") as gateway, grpc.insecure_channel(gateway.address) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(check("readiness"), timeout=10)
        assert next(watch).status == SERVING
        gateway.ask_to_stop()
        assert next(watch).status == NOT_SERVING
        watch.cancel()


def test_reflection_v1alpha_lists_the_services(channel):
    services = set(ProtoReflectionDescriptorDatabase(channel).get_services())
    assert {"glacier.jobs.v1.JobService", "grpc.health.v1.Health"} <= services


def test_the_reflected_file_is_the_one_that_protoc_makes_of_our_proto(channel):
    pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
    service = pool.FindServiceByName("glacier.jobs.v1.JobService")

    assert bare(service.file) == bare(job_service_pb2.DESCRIPTOR)


@pytest.mark.parametrize("detail", ["ErrorInfo", "BadRequest", "RetryInfo", "ResourceInfo"])
def test_reflection_describes_the_error_details(channel, detail):
    pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
    assert pool.FindMessageTypeByName(f"google.rpc.{detail}").fields


def bare(file):
    """The file without what compilers are free to add: the JSON names that follow from the names, and the comments."""
    proto = FileDescriptorProto()
    file.CopyToProto(proto)
    proto.ClearField("source_code_info")
    messages = list(proto.message_type)
    while messages:
        message = messages.pop()
        messages.extend(message.nested_type)
        for field in message.field:
            field.ClearField("json_name")
    return proto


def test_an_error_without_a_message_is_itself_with_a_deadline_and_without_reflection(upstream):
    watch, unpacked = "/grpc.health.v1.Health/Watch", lambda message: message
    reflection = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
    with running_gateway(upstream.url, "--reflection", "false", "--health-listen", "127.0.0.1:0") as gateway:
        for address in [gateway.address, gateway.health_address]:
            with grpc.insecure_channel(address) as channel:
                for timeout in [None, 10]:
                    with pytest.raises(grpc.RpcError) as raised:
                        next(channel.unary_stream(watch, unpacked, unpacked)(b"\xff\xff", timeout=timeout))
                    assert raised.value.code() == grpc.StatusCode.INTERNAL
                    assert "decode" in raised.value.details()

                    with pytest.raises(grpc.RpcError) as raised:
                        next(channel.stream_stream(reflection, unpacked, unpacked)(iter([b""]), timeout=timeout))
                    assert raised.value.code() == grpc.StatusCode.UNIMPLEMENTED
                    assert raised.value.details() == "no such service or method"
