"""What the gateway says about its settings: `--help`, read as an operator would."""

import os
import re
import subprocess
from typing import NamedTuple

from process import GATEWAY


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
