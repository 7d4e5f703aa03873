"""Child processes whose output is a source of events: each line is kept, waited for, and shown when a test fails."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import tempfile
import threading
import time
from typing import ClassVar

import canary
from canary import ACCESS_KEY, SECRET_KEY

GATEWAY = os.environ["GATEWAY_BIN"]
REGION = "us-east-1"

START_SECONDS = 20
# More than the default lame duck and drain together.
STOP_SECONDS = 30


class LoggedProcess:
    """A running program; `address` is where it listens, once it has said so, and `admin_address` where operators ask."""

    running: ClassVar[list["LoggedProcess"]] = []

    def __init__(self, name, argv, env):
        self.name = name
        self.address = None
        self.admin_address = None
        self.health_address = None
        self.lines = []
        self._changed = threading.Condition()
        self._open_streams = 2
        self._asked_to_stop = False
        self.expected_exit_code = 0
        self._process = subprocess.Popen(
            argv, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace"
        )
        for stream in (self._process.stdout, self._process.stderr):
            threading.Thread(target=self._read, args=(stream,), daemon=True).start()
        LoggedProcess.running.append(self)

    def _read(self, stream):
        for line in stream:
            with self._changed:
                self.lines.append(line.rstrip("\n"))
                self._changed.notify_all()
        with self._changed:
            self._open_streams -= 1
            self._changed.notify_all()

    @property
    def pid(self):
        return self._process.pid

    @property
    def log(self):
        return "\n".join(self.lines)

    def wait_for(self, find, seconds):
        """What `find(line)` makes of the first line that it accepts (returns something true for)."""
        deadline = time.monotonic() + seconds
        seen = 0
        with self._changed:
            while True:
                for line in self.lines[seen:]:
                    if found := find(line):
                        return found
                seen = len(self.lines)
                left = deadline - time.monotonic()
                if not self._open_streams or left <= 0:
                    why = "closed its output" if not self._open_streams else f"took longer than {seconds} s"
                    raise AssertionError(f"{self.name} {why} before saying what was waited for; its output:\n{self.log}")
                self._changed.wait(left)

    def ask_to_stop(self, signal_number=signal.SIGTERM):
        """Asks the process to end; once, since a second signal would mean "at once"."""
        if not self._asked_to_stop:
            self._asked_to_stop = True
            self._process.send_signal(signal_number)

    def crash(self):
        """Ends the process without a warning."""
        self.expected_exit_code = -signal.SIGKILL
        self.ask_to_stop(signal.SIGKILL)

    def wait(self):
        """The exit code, as soon as there is one; a process that does not end is killed."""
        try:
            return self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            return f"none within {STOP_SECONDS} s"
        finally:
            LoggedProcess.running.remove(self)


@contextlib.contextmanager
def running(name, argv, env, stop_signal=signal.SIGTERM):
    """Runs a program for the length of a `with`; it must end with exit code 0 when it is asked to, unless it was to crash."""
    process = LoggedProcess(name, argv, env)
    try:
        yield process
    finally:
        process.ask_to_stop(stop_signal)
        code = process.wait()
    assert code == process.expected_exit_code, f"{name}: exit code {code}; its output:\n{process.log}"
    assert not canary.said(process.log), f"{name} has said {canary.said(process.log)}"


@contextlib.contextmanager
def running_gateway(
    endpoint, *flags, token=None, listen="127.0.0.1:0", admin_listen="off", lame_duck="0s", prefix=()
):
    """`glacier-gateway serve` before the Glacier at `endpoint`, on a port of its own unless `listen` says which; `prefix` may
    be a command that runs it."""
    argv = [*prefix, GATEWAY, "serve", "--listen", listen, "--admin-listen", admin_listen, "--region", REGION]
    argv += ["--endpoint-url", endpoint]
    # All that can be said, unless the test says what; see `canary`.
    if "--log" not in flags:
        argv += ["--log", "trace", "--log-hits", "1"]
    argv += ["--log-format", "json", "--lame-duck", lame_duck, "--drain", "10s", *flags]
    with empty_home() as home, running("gateway", argv, aws_environment(home, token)) as process:
        listening = process.wait_for(listening_event, START_SECONDS)
        process.address, process.admin_address = listening["address"], listening.get("admin_address")
        process.health_address = listening.get("health_address")
        process.wait_for(lambda line: '"message":"ready"' in line, START_SECONDS)
        yield process


@contextlib.contextmanager
def running_demo():
    """`glacier-gateway demo` as a newcomer starts it: no flags, no AWS settings, ended with Ctrl-C."""
    with empty_home() as home:
        env = {"PATH": os.environ["PATH"], "HOME": home}
        with running("demo", [GATEWAY, "demo"], env, stop_signal=signal.SIGINT) as process:
            process.address = "127.0.0.1:50051"
            yield process


@contextlib.contextmanager
def empty_home():
    """A home directory without settings."""
    with tempfile.TemporaryDirectory(prefix="interop-home-") as home:
        yield home


def aws_environment(home, token=None):
    """The whole environment of a gateway: credentials as AWS's default chain takes them first, and nothing else."""
    env = {
        "PATH": os.environ["PATH"],
        "HOME": home,
        "AWS_CONFIG_FILE": os.path.join(home, "config"),
        "AWS_SHARED_CREDENTIALS_FILE": os.path.join(home, "credentials"),
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
    }
    if token:
        env["AWS_SESSION_TOKEN"] = canary.mark(token)
    return env


def listening_event(line):
    """The fields of the log line by which the gateway says where it listens, None for every other line."""
    try:
        fields = json.loads(line)["fields"]
        return fields if fields["message"] == "listening" else None
    except (ValueError, KeyError, TypeError):
        return None


def free_addresses(count):
    """As many addresses on loopback on which nobody listens, for programs that must know each other's beforehand."""
    with contextlib.ExitStack() as open_sockets:
        sockets = [open_sockets.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
