"""buf accepts our proto: its lint rules (STANDARD and COMMENTS, as proto/buf.yaml says) and its compiler."""

import shutil
import subprocess
from pathlib import Path

PROTO = Path(__file__).resolve().parents[2] / "proto"
LINT_FOUND_SOMETHING = 100


def buf(*arguments, cwd=PROTO):
    """Runs buf and gives what it said."""
    return subprocess.run(["buf", *arguments], cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)


def test_buf_lint_has_nothing_to_say():
    result = buf("lint")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_buf_lint_would_have_something_to_say_without_our_comments(tmp_path):
    """The control: the rules of buf.yaml are in force."""
    copy = shutil.copytree(PROTO, tmp_path / "proto")
    for file in copy.rglob("*.proto"):
        lines = file.read_text().splitlines(keepends=True)
        file.write_text("".join(line for line in lines if not line.lstrip().startswith("//")))

    result = buf("lint", cwd=copy)
    assert result.returncode == LINT_FOUND_SOMETHING
    assert "should have a non-empty comment for documentation" in result.stdout


def test_buf_compiles_our_proto(tmp_path):
    image = tmp_path / "image.binpb"
    result = buf("build", "--output", str(image))
    assert (result.returncode, result.stderr) == (0, "")
    assert b"glacier.jobs.v1" in image.read_bytes()
