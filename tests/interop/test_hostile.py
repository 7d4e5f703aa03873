"""Hostile and clumsy callers, frame by frame (tests/FAULTS.md, callers): each harms itself, and the others go on.

Floods are bounded in number and time. By hand, IDLE_CONNECTIONS=10000 runs D12 at its full size; it needs as many
descriptors.
"""

import contextlib
import gzip
import os
import resource
import struct
import threading
import time

import grpc
import hpack
import pytest
from glacier.jobs.v1 import job_service_pb2 as pb
from glacier.jobs.v1 import job_service_pb2_grpc

from process import running_gateway
from wire import (
    ACK,
    CONTINUATION,
    DATA,
    DESCRIBE_JOB,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PATIENCE,
    PING,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Wire,
    frame,
    message,
    settings_of,
)

MIB = 1 << 20
# Of everything that an attack may make the gateway keep; allocators keep some of what they once had.
BOUNDED = 24 * MIB
FLOOD = 100_000
QUESTION = pb.DescribeJobRequest(vault_name="vault", job_id="job")
BODY = message(QUESTION.SerializeToString())
RESOURCE_EXHAUSTED, UNIMPLEMENTED = "8", "12"


@pytest.fixture
def gateway(upstream):
    """A gateway that does not log every call, as one under attack would not."""
    with serving(upstream) as process:
        yield process
        upstream.release()


def serving(upstream, *flags, **how):
    """The same with flags."""
    log = "warn,glacier_gateway::commands::serve=info,glacier_gateway::app=info"
    return running_gateway(upstream.url, "--log", log, *flags, **how)


def resident(gateway):
    """Bytes of memory that the gateway has."""
    with open(f"/proc/{gateway.pid}/statm") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize()


def descriptors(gateway):
    """How many descriptors the gateway has open."""
    return len(os.listdir(f"/proc/{gateway.pid}/fd"))


def processor_seconds(gateway):
    """How long the gateway has been on a processor."""
    with open(f"/proc/{gateway.pid}/stat") as stat:
        user, system = stat.read().rsplit(")", 1)[1].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def eventually(holds, seconds=PATIENCE):
    """Waits until something holds."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.01)


@contextlib.contextmanager
def honest_caller(address):
    """Calls all the time from a connection of its own; every call must succeed, and some must be made."""
    failures, made, stop = [], [], threading.Event()

    def call():
        with grpc.insecure_channel(address) as channel:
            stub = job_service_pb2_grpc.JobServiceStub(channel)
            while not stop.is_set():
                try:
                    stub.DescribeJob(QUESTION, timeout=PATIENCE)
                    made.append(time.monotonic())
                except grpc.RpcError as error:
                    failures.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    try:
        eventually(lambda: made or failures)
        before = len(made)
        yield
        eventually(lambda: len(made) > before or failures)
    finally:
        stop.set()
        thread.join()
    assert not failures


@contextlib.contextmanager
def unharmed(gateway, memory=BOUNDED):
    """Whatever happens inside: another caller notices nothing, and memory stays bounded."""
    with honest_caller(gateway.address):
        before = resident(gateway)
        yield
        grown = resident(gateway) - before
    assert grown < memory, f"{grown / MIB:.1f} MiB more"


def test_the_limits_are_told_in_the_first_frame(gateway):
    with Wire(gateway.address) as wire:
        told = settings_of(wire.wait_for(SETTINGS))
        window = struct.unpack(">I", wire.wait_for(WINDOW_UPDATE, stream=0).payload)[0]
    streams, stream_window, frame_size, header_list = 3, 4, 5, 6
    assert told[streams] == 200
    assert told[stream_window] == 64 * 1024
    assert told.get(frame_size, 16 * 1024) == 16 * 1024
    assert told[header_list] == 16 * 1024
    assert 65_535 + window == MIB


def test_the_limits_can_be_set(upstream):
    flags = ["--max-streams=7", "--stream-window=128KiB", "--max-header-list=8KiB", "--connection-window=2MiB"]
    with serving(upstream, *flags) as gateway, Wire(gateway.address) as wire:
        told = settings_of(wire.wait_for(SETTINGS))
        window = struct.unpack(">I", wire.wait_for(WINDOW_UPDATE, stream=0).payload)[0]
    assert (told[3], told[4], told[6], 65_535 + window) == (7, 128 * 1024, 8 * 1024, 2 * MIB)


def test_metadata_above_16_kib_refuses_that_call_alone(gateway):
    """D1."""
    with Wire(gateway.address) as wire, unharmed(gateway):
        block = wire.block(*((f"x-{n}", "v" * 1000) for n in range(17)))
        head, rest = block[:16_000], block[16_000:]
        wire.send(frame(HEADERS, END_STREAM, 1, head), frame(CONTINUATION, END_HEADERS, 1, rest))
        assert wire.wait_for(HEADERS, stream=1).payload[":status"] == "431"
        wire.send(wire.call(3, BODY))
        assert wire.answer(3)["grpc-status"] == "0"


def test_a_message_of_5_mib_refuses_that_call_alone(gateway):
    """D2."""
    with Wire(gateway.address) as wire, unharmed(gateway):
        body = message(bytes(5 * MIB))
        # No more than the window takes: the refusal comes long before the end.
        wire.send(frame(HEADERS, END_HEADERS, 1, wire.block()))
        wire.send(*(frame(DATA, 0, 1, body[n : n + 16_384]) for n in range(0, 3 * 16_384, 16_384)))
        assert wire.answer(1)["grpc-status"] == RESOURCE_EXHAUSTED
        wire.send(wire.call(3, BODY))
        assert wire.answer(3)["grpc-status"] == "0"


def test_a_length_of_4_gib_is_not_believed(gateway):
    """D2."""
    with Wire(gateway.address) as wire, unharmed(gateway):
        streams = range(1, 200, 2)
        for stream in streams:
            wire.send(frame(HEADERS, END_HEADERS, stream, wire.block()))
            wire.send(frame(DATA, 0, stream, message(b"some bytes", length=0xFFFF_FFFF)))
        assert {answer["grpc-status"] for answer in wire.answers(streams).values()} == {RESOURCE_EXHAUSTED}
        wire.send(wire.call(201, BODY))
        assert wire.answer(201)["grpc-status"] == "0"


def test_a_compressed_bomb_is_opened_no_further_than_the_limit(gateway):
    """D22."""
    bomb = gzip.compress(bytes(10 * MIB))
    assert len(bomb) < 16 * 1024
    with Wire(gateway.address) as wire, unharmed(gateway):
        wire.send(wire.call(1, message(bomb, compressed=True), ("grpc-encoding", "gzip")))
        assert wire.answer(1)["grpc-status"] == RESOURCE_EXHAUSTED
        wire.send(wire.call(3, BODY))
        assert wire.answer(3)["grpc-status"] == "0"
        packed = message(gzip.compress(QUESTION.SerializeToString()), compressed=True)
        wire.send(wire.call(5, packed, ("grpc-encoding", "gzip")))
        assert wire.answer(5)["grpc-status"] == "0"
        wire.send(wire.call(7, packed, ("grpc-encoding", "deflate")))
        refusal = wire.answer(7)
        assert (refusal["grpc-status"], refusal["grpc-accept-encoding"]) == (UNIMPLEMENTED, "identity,gzip")


def test_a_rapid_reset_closes_that_connection(gateway):
    """D6."""
    with Wire(gateway.address) as wire, unharmed(gateway):
        first = frame(HEADERS, END_HEADERS, 1, wire.block())
        wire.send(first)
        block = wire.block()
        cancel = struct.pack(">I", 8)
        resets = b"".join(
            frame(HEADERS, END_HEADERS | END_STREAM, stream, block) + frame(RST_STREAM, 0, stream, cancel)
            for stream in range(3, 2 * FLOOD, 2)
        )
        wire.flood(resets)
        wire.wait_until_closed()


def test_slow_resets_are_counted_too(upstream):
    """D6: resets of calls that had begun, which h2 does not count."""
    with serving(upstream, "--max-resets", "100") as gateway, Wire(gateway.address) as wire, unharmed(gateway):
        wire.send(frame(HEADERS, END_HEADERS, 1, wire.block()))
        block = wire.block()
        last = None
        with contextlib.suppress(ConnectionError, AssertionError):
            for last in range(3, 1000, 2):
                wire.send(frame(HEADERS, END_HEADERS, last, block))
                wire.settle()
                wire.send(frame(RST_STREAM, 0, last, struct.pack(">I", 8)))
        wire.wait_until_closed()
        assert 201 <= last <= 205


@pytest.mark.parametrize(
    ("increment", "most_resets", "reason"),
    [(0, 0, 1), (0x7FFF_FFFF, 1024, 11)],
    ids=["by nothing: PROTOCOL_ERROR", "beyond the limit: ENHANCE_YOUR_CALM"],
)
def test_window_updates_that_make_us_reset_are_counted(gateway, increment, most_resets, reason):
    """D7."""
    with Wire(gateway.address) as wire, unharmed(gateway):
        wire.send(frame(HEADERS, END_HEADERS, 1, wire.block()))
        block = wire.block()
        update = struct.pack(">I", increment)
        wire.flood(
            b"".join(
                frame(HEADERS, END_HEADERS, stream, block) + frame(WINDOW_UPDATE, 0, stream, update)
                for stream in range(3, 4000, 2)
            )
        )
        seen = wire.wait_until_closed()
        assert len([found for found in seen if found.kind == RST_STREAM]) <= most_resets
        away = [struct.unpack(">I", found.payload[4:8])[0] for found in seen if found.kind == GOAWAY]
        assert away == [reason]


def ping_flood(wire):
    return frame(PING, payload=bytes(8)) * FLOOD


def settings_flood(wire):
    return frame(SETTINGS, payload=struct.pack(">HI", 4, 65_535)) * FLOOD


def empty_data_flood(wire):
    return frame(HEADERS, END_HEADERS, 1, wire.block()) + frame(DATA, 0, 1) * FLOOD


def padded_data_flood(wire):
    padded = 0x8
    return frame(HEADERS, END_HEADERS, 1, wire.block()) + frame(DATA, padded, 1, b"\1\0") * FLOOD


def priority_flood(wire):
    return frame(2, 0, 1, struct.pack(">IB", 0, 16)) * FLOOD


def window_flood(wire):
    return frame(HEADERS, END_HEADERS, 1, wire.block()) + frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 1)) * FLOOD


def unknown_flood(wire):
    return frame(99, 0, 0) * FLOOD


def continuation_flood(wire):
    return frame(HEADERS, 0, 1, wire.block()) + frame(CONTINUATION, 0, 1) * FLOOD


def large_continuation_flood(wire):
    header = hpack_literal(b"x-flood", b"v" * 100)
    block = (header * (16_384 // len(header)))[: 16_384 // len(header) * len(header)]
    return frame(HEADERS, 0, 1, wire.block()) + frame(CONTINUATION, 0, 1, block) * 2000


def hpack_literal(name, value):
    """A header that leaves the table as it is."""
    return b"\0" + bytes((len(name),)) + name + bytes((len(value),)) + value


@pytest.mark.parametrize(
    "flood",
    [
        ping_flood,
        settings_flood,
        empty_data_flood,
        padded_data_flood,
        priority_flood,
        window_flood,
        unknown_flood,
        continuation_flood,
        large_continuation_flood,
    ],
)
@pytest.mark.parametrize("reads", [True, False], ids=["read", "unread"])
def test_a_flood_of_frames_closes_that_connection(gateway, flood, reads):
    """D8."""
    with Wire(gateway.address) as wire, unharmed(gateway):
        if reads:
            reader = threading.Thread(target=drain, args=(wire.socket.dup(),))
            reader.start()
        closed = wire.flood(flood(wire))
        if reads:
            reader.join(PATIENCE)
            assert not reader.is_alive(), "still open"
        elif not closed:
            wire.wait_until_closed()


def drain(connection):
    """Reads until the end."""
    with connection, contextlib.suppress(ConnectionError):
        connection.settimeout(PATIENCE)
        while connection.recv(65536):
            pass


def test_500_calls_cancelled_together_harm_nobody(gateway, upstream):
    """D9: one connection, as many calls at once as it may have, all cancelled, and again."""
    upstream.hold()
    with Wire(gateway.address) as wire:
        cancel = struct.pack(">I", 8)
        last = 1
        for calls in (200, 200, 100):
            streams = range(last, last + 2 * calls, 2)
            last += 2 * calls
            wire.send(*(wire.call(stream, BODY) for stream in streams))
            wire.settle()
            wire.send(*(frame(RST_STREAM, 0, stream, cancel) for stream in streams))
        upstream.release()
        wire.send(wire.call(last, BODY))
        assert wire.answer(last)["grpc-status"] == "0"
        assert not wire.is_closed()


def test_grpcio_may_cancel_500_calls_together(gateway, upstream, stub):
    """D9."""
    upstream.hold()
    calls = [stub.DescribeJob.future(QUESTION, timeout=PATIENCE) for _ in range(500)]
    upstream.wait_for_requests(1)
    for call in calls:
        call.cancel()
    upstream.release()
    assert stub.DescribeJob(QUESTION, timeout=PATIENCE).job.job_id == "job"


@pytest.mark.parametrize(
    "opening",
    [
        b"",
        PREFACE[:12],
        PREFACE,
        PREFACE + frame(SETTINGS)[:5],
        PREFACE + frame(SETTINGS) + frame(HEADERS, 0, 1, b"\x83"),
        PREFACE + frame(SETTINGS) + frame(HEADERS, END_HEADERS, 1, b"\x83" * 20)[:15],
    ],
    ids=["nothing", "half a preface", "no settings", "half a frame's head", "half a header block", "half a frame"],
)
def test_what_is_not_finished_in_time_is_closed(upstream, opening):
    """D10, with a second for the ten."""
    with serving(upstream, "--handshake-timeout", "1s") as gateway:
        before = descriptors(gateway)
        with Wire(gateway.address, opening) as wire:
            started = time.monotonic()
            wire.wait_until_closed()
            assert time.monotonic() - started > 0.9
            eventually(lambda: descriptors(gateway) == before)


def test_a_client_that_never_reads_is_closed(upstream):
    """D11."""
    with serving(upstream, "--write-timeout", "1s") as gateway, unharmed(gateway, memory=40 * MIB):
        with Wire(gateway.address, receive_buffer=4096) as wire:
            wire.send(wire.call(1, BODY))
            block = wire.block()
            closed, stream, deadline = False, 3, time.monotonic() + PATIENCE
            wire.socket.settimeout(PATIENCE)
            while not closed:
                assert time.monotonic() < deadline, "still open"
                calls = b"".join(
                    frame(HEADERS, END_HEADERS, n, block) + frame(DATA, END_STREAM, n, BODY)
                    for n in range(stream, stream + 200, 2)
                )
                stream += 200
                closed = wire.flood(calls)


def test_idle_connections_cost_little_memory(upstream):
    """D12."""
    count = int(os.environ.get("IDLE_CONNECTIONS", "500"))
    with serving(upstream) as gateway, contextlib.ExitStack() as held:
        with honest_caller(gateway.address):
            before, open_before = resident(gateway), descriptors(gateway)
            wires = [held.enter_context(Wire(gateway.address)) for _ in range(count)]
            for wire in wires:
                wire.send(wire.call(1, BODY))
            for wire in wires:
                assert wire.answer(1)["grpc-status"] == "0"
            # Connections to Glacier come and go meanwhile.
            assert descriptors(gateway) - open_before > count - 5
            each = (resident(gateway) - before) / count
        print(f"{count} idle connections: {each / 1024:.1f} KiB each")
        assert each < 64 * 1024
        held.pop_all().close()


def test_calls_that_come_with_the_end_of_their_connection_are_not_kept(gateway):
    """A CONNECT that has a body ends a connection, together with the calls that came just before it."""
    large = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", DESCRIBE_JOB.encode()), (b":authority", b"gateway")]
    large += [(b"content-type", b"application/grpc"), (b"x-large", b"x" * 12_000)]
    connect = [(b":method", b"CONNECT"), (b":authority", b"gateway"), (b"content-length", b"5")]
    # Never indexed, so that the blocks do not depend on those before them.
    never = [[(*line, True) for line in lines] for lines in (large, connect)]
    large, connect = (hpack.Encoder().encode(lines, huffman=False) for lines in never)
    calls = b"".join(frame(HEADERS, END_HEADERS, stream, large) for stream in range(1, 2 * 199, 2))
    opening = PREFACE + frame(SETTINGS) + calls + frame(HEADERS, END_HEADERS, 2 * 199 + 1, connect)

    def end_some(count):
        for _ in range(count):
            with Wire(gateway.address, opening) as wire:
                wire.wait_until_closed()

    end_some(3)
    with unharmed(gateway, memory=16 * MIB):
        # Each left 0.7 MiB behind.
        end_some(60)


def test_only_a_dead_peer_is_reaped(upstream):
    """D12, with a second for the sixty and one for the twenty."""
    with serving(upstream, "--ping-interval", "1s", "--ping-timeout", "1s") as gateway:
        with Wire(gateway.address) as dead, Wire(gateway.address) as alive:
            dead.wait_for(PING)
            for _ in range(4):
                ping = alive.wait_for(PING)
                assert ping.flags == 0
                alive.send(frame(PING, ACK, payload=ping.payload))
            assert dead.is_closed()
            assert not alive.is_closed()


def test_connections_take_at_most_half_of_the_descriptors(upstream):
    """D13."""
    limited = ["prlimit", "--nofile=100:100", "--"]
    with serving(upstream, prefix=limited) as gateway, contextlib.ExitStack() as held:
        told = gateway.wait_for(lambda line: "too few descriptors" in line and line, PATIENCE)
        assert '"room":50' in told
        wires = [held.enter_context(Wire(gateway.address)) for _ in range(50)]
        for wire in wires:
            wire.settle()
        with pytest.raises((ConnectionError, AssertionError)), Wire(gateway.address) as refused:
            refused.settle()
        wires[0].send(wires[0].call(1, BODY))
        assert wires[0].answer(1)["grpc-status"] == "0"


def test_without_descriptors_it_waits_and_recovers(upstream):
    """D14."""
    with serving(upstream) as gateway, contextlib.ExitStack() as held:
        old = held.enter_context(Wire(gateway.address))
        old.send(old.call(1, BODY))
        assert old.answer(1)["grpc-status"] == "0"
        few = descriptors(gateway) + 10
        resource.prlimit(gateway.pid, resource.RLIMIT_NOFILE, (few, few))
        crowd = [held.enter_context(Wire(gateway.address)) for _ in range(50)]
        gateway.wait_for(lambda line: "cannot accept connections" in line, PATIENCE)
        started, spent = time.monotonic(), processor_seconds(gateway)
        time.sleep(3)
        share = (processor_seconds(gateway) - spent) / (time.monotonic() - started)
        assert share < 0.2, f"{share:.0%} of a processor"
        old.send(old.call(3, BODY))
        assert old.answer(3)["grpc-status"] == "0"

        for wire in crowd:
            wire.socket.close()
        started = time.monotonic()
        with Wire(gateway.address) as late:
            late.send(late.call(1, BODY))
            assert late.answer(1)["grpc-status"] == "0"
        assert time.monotonic() - started < 1.0
