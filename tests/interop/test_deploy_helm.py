"""The chart under `deploy/helm`: Helm makes of it what kustomize makes of the manifests, object for object."""

import itertools
import json
import re
import shlex
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

from manifests import COMPONENTS, build_with_components

DEPLOY = Path(__file__).parents[2] / "deploy"
CHART = DEPLOY / "helm"
POLICY = DEPLOY / "kubernetes/components/mtls/policy.toml"
NAMESPACE = "glacier-gateway"

# The values that stand for the base and for each of its components.
VALUES = {
    "base": ["--set", "region=eu-west-1"],
    "irsa": ["--set", "roleArn=arn:aws:iam::111122223333:role/glacier-gateway"],
    "pod-identity": ["--set", "podIdentity=true"],
    "mtls": ["--set", "mtls.secretName=glacier-gateway-tls", "--set-file", f"mtls.policy={POLICY}"],
    "monitoring": ["--set", "monitoring.enabled=true"],
}
assert sorted(VALUES) == ["base", *COMPONENTS]
INSTALLS = [["base"], *(["base", component] for component in VALUES if component != "base"), list(VALUES)]


def helm(*arguments):
    return subprocess.run(["helm", *arguments], capture_output=True, text=True)


def rendered(*values):
    """The objects of the chart, by kind and name."""
    made = helm("template", "any-name", CHART, "--namespace", NAMESPACE, *values)
    assert made.returncode == 0, made.stderr
    return by_name(yaml.safe_load_all(made.stdout))


def by_name(documents):
    found = {(document["kind"], document["metadata"]["name"]): document for document in documents if document}
    (container,) = found["Deployment", "glacier-gateway"]["spec"]["template"]["spec"]["containers"]
    # Their order means nothing.
    container["env"].sort(key=lambda variable: variable["name"])
    return found


@pytest.mark.parametrize("install", INSTALLS, ids="+".join)
def test_the_chart_makes_the_objects_that_kustomize_makes(install, tmp_path):
    expected = by_name(build_with_components(tmp_path, install[1:]))
    # Helm makes the namespace itself (--create-namespace), without labels.
    del expected["Namespace", NAMESPACE]

    made = rendered(*(argument for part in install for argument in VALUES[part]))
    assert made.keys() == expected.keys()
    for name, document in expected.items():
        assert made[name] == document, name


def test_the_commands_of_the_operators_page_install_the_chart():
    page = (DEPLOY / "README.md").read_text()
    commands = re.search(r"^    kubectl create namespace .*\n(?:    .*\n)+", page, re.MULTILINE)[0].replace("\\\n", " ").splitlines()
    create, label, install = (shlex.split(command) for command in commands)
    # As the manifests have it.
    labels = yaml.safe_load((DEPLOY / "kubernetes/base/namespace.yaml").read_text())["metadata"]
    assert (create[-1], label[3]) == (NAMESPACE, labels["name"])
    assert dict(pair.split("=") for pair in label[4:]) == labels["labels"]

    yours = {
        "image.repository=…": "image.repository=registry.example.com/gateway",
        "image.digest=sha256:…": "image.digest=sha256:" + "0" * 64,
        "roleArn=…": "roleArn=arn:aws:iam::111122223333:role/gateway",
        "mtls.policy=policy.toml": f"mtls.policy={POLICY}",
    }
    assert install[:2] == ["helm", "install"] and yours.keys() <= set(install)
    command = ["helm", "template", *(yours.get(argument, argument) for argument in install[2:])]
    made = subprocess.run(command, cwd=DEPLOY.parent, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    assert by_name(yaml.safe_load_all(made.stdout)).keys() == rendered(*itertools.chain(*VALUES.values())).keys()


def test_helms_linter_has_nothing_to_say():
    linted = helm("lint", "--strict", CHART, *(argument for values in VALUES.values() for argument in values))
    assert linted.returncode == 0, linted.stdout + linted.stderr
    assert "[WARNING]" not in linted.stdout and "[ERROR]" not in linted.stdout


def test_the_chart_has_the_version_of_the_gateway():
    version = tomllib.loads((DEPLOY.parent / "Cargo.toml").read_text())["package"]["version"]
    assert yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"] == version


def test_values_reach_the_objects_that_they_are_about():
    made = rendered(
        *VALUES["base"], "--set", "image.repository=registry.example.com/gateway", "--set", "image.digest=sha256:" + "0" * 64,
        "--set", "image.tag=v1", "--set", "cacheMiB=256", "--set", "autoscaling.maxReplicas=5",
        "--set-string", "env.GLACIER_GATEWAY_MAX_FETCHES=128", "--set", "env.GLACIER_GATEWAY_LOG_FORMAT=text",
    )  # fmt: skip
    (container,) = made["Deployment", NAMESPACE]["spec"]["template"]["spec"]["containers"]
    environment = {variable["name"]: variable["value"] for variable in container["env"]}
    assert len(environment) == len(container["env"])
    assert container["image"] == "registry.example.com/gateway@sha256:" + "0" * 64
    assert environment["GLACIER_GATEWAY_MAX_FETCHES"] == "128"
    assert environment["GLACIER_GATEWAY_LOG_FORMAT"] == "text"
    assert (environment["GLACIER_GATEWAY_CACHE_CAPACITY"], container["resources"]["limits"]["memory"]) == ("256MiB", "640Mi")
    assert made["HorizontalPodAutoscaler", NAMESPACE]["spec"]["maxReplicas"] == 5


def test_alerts_link_to_the_copy_of_the_page_that_the_values_name():
    made = rendered(*VALUES["base"], *VALUES["monitoring"], "--set", "monitoring.page=https://wiki.example.com/gateway")
    rules = [rule for group in made["PrometheusRule", NAMESPACE]["spec"]["groups"] for rule in group["rules"]]
    links = [rule["annotations"]["runbook_url"] for rule in rules if "alert" in rule]
    assert links and all(link.startswith("https://wiki.example.com/gateway#") for link in links)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ([], "region"),
        ([*VALUES["base"], "--set", "regoin=eu-west-1"], "regoin"),
        ([*VALUES["base"], "--set", "mtls.secret=glacier-gateway-tls"], "secret"),
        ([*VALUES["base"], "--set", "image.digest=latest"], "digest"),
        ([*VALUES["base"], "--set", "roleArn=glacier-gateway"], "roleArn"),
        ([*VALUES["base"], "--set-file", f"mtls.policy={POLICY}"], "mtls.policy needs mtls.secretName"),
    ],
)  # fmt: skip
def test_values_that_cannot_be_meant_are_refused(values, told):
    refused = helm("template", "any-name", CHART, *values)
    assert refused.returncode != 0 and told in refused.stderr


def test_the_dashboard_and_the_rules_of_the_chart_are_those_of_the_folder_monitoring():
    # Links, so that there is one of each.
    for file in ("dashboard.json", "rules.yaml"):
        assert (CHART / "files" / file).resolve() == DEPLOY / "monitoring" / file
    assert json.loads((CHART / "files/dashboard.json").read_text())["uid"]
