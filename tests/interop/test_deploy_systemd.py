"""The unit under `deploy/systemd`, judged by systemd itself and by the gateway."""

import configparser
import re
import subprocess
from pathlib import Path

import pytest

from certificates import Authority
from process import GATEWAY
from settings import seconds, settings_of, size

SYSTEMD = Path(__file__).parents[2] / "deploy/systemd"
UNIT = SYSTEMD / "glacier-gateway.service"
BINARY = "/usr/local/bin/glacier-gateway"
# Of 100; a unit without any of this has 96.
MOST_EXPOSED = 15


@pytest.fixture(scope="module")
def service():
    """The settings of the section `Service`; of those that are there twice, the last."""
    parser = configparser.ConfigParser(strict=False, interpolation=None, delimiters="=")
    parser.optionxform = str
    parser.read(UNIT)
    return parser["Service"]


@pytest.fixture(scope="module")
def settings():
    return {variable: setting.default for variable, setting in settings_of("serve").items()}


@pytest.fixture
def unit(tmp_path):
    """The unit, with the gateway that is tested."""
    installed = tmp_path / UNIT.name
    text = UNIT.read_text()
    assert f"ExecStart={BINARY} " in text
    installed.write_text(text.replace(BINARY, GATEWAY))
    return installed


def analyze(*arguments):
    return subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, timeout=60)


def test_systemd_accepts_the_unit(unit):
    verified = analyze("verify", "--man=no", unit)
    assert (verified.returncode, verified.stdout, verified.stderr) == (0, "", "")
    # It does look.
    unit.write_text(unit.read_text().replace("MemoryMax=384M", "MemoryMax=plenty"))
    assert "Invalid memory limit 'plenty'" in analyze("verify", "--man=no", unit).stderr


def test_systemd_finds_the_service_hardly_exposed(unit):
    judged = analyze("security", "--offline=yes", f"--threshold={MOST_EXPOSED}", "--no-pager", unit)
    assert judged.returncode == 0, judged.stdout + judged.stderr


def test_it_is_given_the_time_and_the_memory_that_it_needs(service, settings):
    end = sum(seconds(settings[f"GLACIER_GATEWAY_{phase}"]) for phase in ("LAME_DUCK", "DRAIN"))
    assert int(service["TimeoutStopSec"]) > end
    assert size(service["MemoryMax"] + "iB") == 2 * size(settings["GLACIER_GATEWAY_CACHE_CAPACITY"]) + size("128MiB")
    # Connections stay within half of the descriptors.
    assert int(service["LimitNOFILE"]) >= 2 * int(settings["GLACIER_GATEWAY_MAX_CONNECTIONS"])


def test_a_configuration_that_is_not_valid_is_not_tried_again(service):
    command = service["ExecStart"].split()
    refused = subprocess.run([GATEWAY, *command[1:], "--max-attempts", "none"], env={}, capture_output=True, timeout=60)
    assert (command[0], str(refused.returncode)) == (BINARY, service["RestartPreventExitStatus"])


def test_the_gateway_accepts_the_environment_with_every_line_of_it(service, tmp_path):
    assert service["EnvironmentFile"] == "/etc/glacier-gateway/environment"
    text = (SYSTEMD / "environment").read_text()
    as_it_is = dict(re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE))
    all_of_it = dict(re.findall(r"^#?(\w+)=(.*)$", text, re.MULTILINE))
    assert len(all_of_it) > len(as_it_is) > 1
    assert all(name in settings_of("serve") or name.startswith("AWS_") for name in all_of_it)

    authority = Authority("of the machine")
    pair = authority.pair("glacier-gateway")
    policy = '[[allow]]\ncallers = ["spiffe://example.org/restore"]\naccounts = ["-"]\nvaults = ["*"]\n'
    files = {"tls.crt": pair.certificate, "tls.key": pair.key, "ca.crt": authority.certificate, "policy.toml": policy}
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    for environment in (as_it_is, all_of_it):
        here = {name: value.replace("/etc/glacier-gateway", str(tmp_path)) for name, value in environment.items()}
        command = [GATEWAY, *service["ExecStart"].split()[1:], "--check-config"]
        checked = subprocess.run(command, env=here, capture_output=True, text=True, timeout=60)
        assert checked.returncode == 0, checked.stderr


def test_the_commands_of_the_operators_page_put_the_files_where_the_unit_looks(service, tmp_path):
    page = (SYSTEMD.parent / "README.md").read_text()
    commands = re.findall(r"^    (install .*)$", page, re.MULTILINE)
    assert len(commands) == 3
    source = tmp_path / "source"
    for folder in (tmp_path / "usr/local/bin", tmp_path / "etc/systemd/system", source / "target/release"):
        folder.mkdir(parents=True)
    (source / "deploy").symlink_to(SYSTEMD.parent)
    (source / "target/release/glacier-gateway").symlink_to(GATEWAY)
    for command in commands:
        *copy, destination = command.split()
        subprocess.run([*copy, f"{tmp_path}{destination}"], cwd=source, check=True)
    for path in (service["ExecStart"].split()[0], service["EnvironmentFile"], f"/etc/systemd/system/{UNIT.name}"):
        assert Path(f"{tmp_path}{path}").is_file()
    # It may hold a key.
    assert Path(f"{tmp_path}{service['EnvironmentFile']}").stat().st_mode & 0o077 == 0
