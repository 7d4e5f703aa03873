"""The image's root, with the gateway that the whole suite runs; `.ci/run` does the same with the lean build."""

import subprocess
from pathlib import Path

from process import GATEWAY

DEPLOY = Path(__file__).parents[2] / "deploy"


def test_the_gateway_runs_in_an_empty_read_only_root_as_nobody_in_particular():
    ended = subprocess.run([DEPLOY / "image-check", GATEWAY], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
