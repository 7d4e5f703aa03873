"""What we tell people to paste works as pasted: the grpcurl commands of README.md, and those that the demo prints.

A command that is meant to fail says so in a comment behind it: `grpcurl … # -> NOT_FOUND`.
"""

import re
import subprocess
from pathlib import Path

import grpc
import pytest

from process import running_demo

ROOT = Path(__file__).resolve().parents[2]
ADDRESS = re.compile(r"(127\.0\.0\.1|localhost):50051")
EXPECTED_ERROR = re.compile(r"#\s*->\s*([A-Z_]+)\s*$")
# grpcurl's exit code for a failed call is this plus the number of the status.
CALL_FAILED = 64
# The demo follows a job to its end before it prints its commands.
DEMO_SECONDS = 60


def readme_commands():
    """The grpcurl commands in README.md's `sh` blocks; a backslash at the end continues a line."""
    blocks = re.findall(r"^```sh\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [line for line in lines if line.startswith("grpcurl")]


@pytest.fixture(scope="module")
def demo():
    """The demo, after it has printed what to try: its last line says how to end it."""
    with running_demo() as process:
        process.wait_for(lambda line: "Ctrl-C" in line, DEMO_SECONDS)
        yield process


@pytest.mark.parametrize("command", readme_commands())
def test_a_command_of_the_readme_works_as_pasted(demo, command):
    paste(command)


def test_the_commands_that_the_demo_prints_work_as_pasted(demo):
    commands = [line.strip() for line in demo.lines if line.lstrip().startswith("grpcurl")]
    assert commands, "the demo printed no grpcurl command"
    for command in commands:
        paste(command)


def paste(command):
    """Runs a command in a shell, as a reader would, and checks that it ends as it says."""
    assert ADDRESS.search(command), f"not a command for the demo's own address: {command}"
    result = subprocess.run(
        ["bash", "-c", command], cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30
    )
    error = EXPECTED_ERROR.search(command)
    expected = CALL_FAILED + grpc.StatusCode[error[1]].value[0] if error else 0
    assert result.returncode == expected, f"{command}\n{result.stdout}{result.stderr}"
