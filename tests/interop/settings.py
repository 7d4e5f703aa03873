"""What the gateway says about its settings: `--help`, read as an operator would."""

import os
import re
import subprocess
from typing import NamedTuple

from process import GATEWAY


SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}
SIZES = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}


def seconds(duration):
    """The value of a duration, as settings have it."""
    number, unit = re.fullmatch(r"(\d+)([a-z]+)", duration).groups()
    return int(number) * SECONDS[unit]


def size(text):
    """The value of a size in bytes, as settings and Kubernetes have it."""
    number, unit = re.fullmatch(r"(\d+)([A-Za-z]+)", text).groups()
    return int(number) * SIZES[unit]


class Setting(NamedTuple):
    """A flag with its variable, and its default if the program has one."""

    flag: str
    variable: str
    default: str | None


def settings_of(command):
    """The settings of a command of the gateway, by their variables."""
    env = {"PATH": os.environ["PATH"]}
    told = subprocess.run([GATEWAY, command, "--help"], check=True, capture_output=True, text=True, env=env).stdout
    # One line for each flag, however wide the terminal was thought to be.
    entries = re.split(r"\n\s+(?=--|-h, --)", told)
    found = {}
    for entry in (" ".join(entry.split()) for entry in entries):
        setting = re.match(r"(--[a-z-]+) .*\[env: (\w+)=[^\]]*\](?: \[default: ([^\]]*)\])?", entry)
        if setting:
            found[setting[2]] = Setting(*setting.groups())
    assert found, told
    return found
