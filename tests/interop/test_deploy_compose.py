"""The Compose file under `deploy/compose`, read by the library with which `docker compose` reads it."""

import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from process import GATEWAY, empty_home, free_addresses, running
from settings import seconds, settings_of, size

DEPLOY = Path(__file__).parents[2] / "deploy"
FILE = DEPLOY / "compose/compose.yaml"
# What comes from the shell, and from nowhere else.
FROM_THE_SHELL = {"AWS_REGION": "eu-west-1", "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE", "AWS_SECRET_ACCESS_KEY": "of-nobody"}
START_SECONDS = 60


def compose(file):
    # Paths in the file count from its folder, as with `docker compose`.
    command = ["compose-spec", "--format", "json", file]
    return subprocess.run(command, cwd=file.parent, capture_output=True, text=True)


@pytest.fixture(scope="module")
def services():
    """The services, with all that is merged and filled in."""
    read = compose(FILE)
    assert read.returncode == 0, read.stderr
    return json.loads(read.stdout)["services"]


@pytest.fixture(scope="module")
def image():
    """The variables that the image sets."""
    (block,) = re.findall(r"^ENV ((?:.*\\\n)*.*)$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
    return dict(pair.split("=") for pair in block.replace("\\\n", " ").split())


def test_a_file_that_compose_does_not_accept_is_noticed(tmp_path):
    wrong = tmp_path / "compose.yaml"
    wrong.write_text(FILE.read_text().replace("read_only:", "read_onyl:"))
    assert compose(wrong).returncode != 0


def test_the_emulator_is_only_in_the_image_of_the_demo(services):
    assert services.keys() == {"demo", "gateway"}
    # `up` alone needs no AWS.
    assert "profiles" not in services["demo"] and services["gateway"]["profiles"]
    assert services["demo"]["image"] != services["gateway"]["image"]
    assert services["demo"]["build"]["args"]["FEATURES"] == "--all-features"
    assert "FEATURES" not in services["gateway"]["build"]["args"]
    for service in services.values():
        dockerfile = Path(service["build"]["context"], service["build"]["dockerfile"])
        assert dockerfile == DEPLOY / "Dockerfile"
        declared = set(re.findall(r"^ARG (\w+)", dockerfile.read_text(), re.MULTILINE))
        assert service["build"]["args"].keys() <= declared
    # From the shell, and so not in what Compose fills in.
    for service in yaml.safe_load(FILE.read_text())["services"].values():
        assert service["build"]["args"]["RUNTIME_IMAGE"] is None


def test_both_services_are_contained_and_end_in_their_own_time(services):
    settings = settings_of("serve")
    for service in services.values():
        assert (service["read_only"], service["cap_drop"], service["security_opt"]) == (True, ["ALL"], ["no-new-privileges:true"])
        capacity = service.get("environment", {}).get("GLACIER_GATEWAY_CACHE_CAPACITY", settings["GLACIER_GATEWAY_CACHE_CAPACITY"].default)
        assert service["mem_limit"][-1] == "m"
        assert int(service["mem_limit"][:-1]) * 2**20 == 2 * size(capacity) + size("128MiB")
        end = sum(seconds(settings[f"GLACIER_GATEWAY_{phase}"].default) for phase in ("LAME_DUCK", "DRAIN"))
        assert seconds(service["stop_grace_period"]) > end


def test_ports_are_those_of_the_image_and_only_for_the_machine_itself(services, image):
    port_of = lambda variable: int(image[variable].rpartition(":")[2])
    grpc, admin = port_of("GLACIER_GATEWAY_LISTEN"), port_of("GLACIER_GATEWAY_ADMIN_LISTEN")
    for name, expected in (("demo", {grpc}), ("gateway", {grpc, admin})):
        ports = services[name]["ports"]
        assert {port["target"] for port in ports} == expected
        assert {port["host_ip"] for port in ports} == {"127.0.0.1"}


def test_the_gateway_accepts_its_settings(services, image):
    service = services["gateway"]
    assert all(name in settings_of("serve") or name.startswith("AWS_") for name in service["environment"])
    environment = {name: value or FROM_THE_SHELL.get(name) for name, value in service["environment"].items()}
    # A session's token is not there for a key that lasts.
    assert [name for name, value in environment.items() if value is None] == ["AWS_SESSION_TOKEN"]
    del environment["AWS_SESSION_TOKEN"]
    command = [GATEWAY, *service["command"], "--check-config"]
    checked = subprocess.run(command, env=image | environment, capture_output=True, text=True, timeout=60)
    assert checked.returncode == 0, checked.stderr


def test_the_demo_serves_and_the_images_health_check_finds_it_well(services, image):
    assert image["GLACIER_GATEWAY_LISTEN"].startswith("0.0.0.0:")
    (address,) = free_addresses(1)
    # On loopback here.
    environment = image | {"GLACIER_GATEWAY_LISTEN": address}
    health = re.search(r"^HEALTHCHECK (?:.*\\\n)*\s*CMD (\[.*\])$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
    with empty_home() as home, running("demo", [GATEWAY, *services["demo"]["command"]], environment | {"HOME": home}) as demo:
        demo.wait_for(lambda line: "Ctrl-C" in line, START_SECONDS)
        check = [GATEWAY, *json.loads(health[1])[1:], "--address", address]
        checked = subprocess.run(check, env=environment, capture_output=True, text=True, timeout=30)
        assert checked.returncode == 0, checked.stderr
