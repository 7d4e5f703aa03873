"""The manifests under `deploy/kubernetes` and the policies under `deploy/iam`, checked against kustomize, against
Kubernetes' own schemas, and against what the gateway says of itself."""

import json
import os
import re
import subprocess
import tomllib
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from certificates import Authority
from manifests import CHOICES, COMPONENTS, KUBERNETES, OVERLAYS, build, build_with_components
from process import GATEWAY
from settings import seconds, settings_of, size

DEPLOY = Path(__file__).parents[2] / "deploy"
INSTALLS = [*OVERLAYS, *CHOICES]
SERVING = [install for install in INSTALLS if install != "dev"]
# Kinds of operators, of which Kubernetes has no schema.
FOREIGN = {"PodMonitor", "PrometheusRule"}
ACCOUNT = "111122223333"


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    """What each install becomes, by its name."""
    overlays = {overlay: build(KUBERNETES / overlay) for overlay in OVERLAYS}
    return overlays | {name: build_with_components(tmp_path_factory.mktemp(name), chosen) for name, chosen in CHOICES.items()}


@pytest.fixture(scope="module")
def settings():
    """Of `serve`: the default of each variable, None where there is none."""
    return {variable: setting.default for variable, setting in settings_of("serve").items()}


def the(kind, documents):
    """The one document of this kind."""
    (found,) = [document for document in documents if document["kind"] == kind]
    return found


def pod_of(documents):
    return the("Deployment", documents)["spec"]["template"]["spec"]


def container_of(documents):
    (container,) = pod_of(documents)["containers"]
    return container


def environment_of(documents):
    return {variable["name"]: variable["value"] for variable in container_of(documents).get("env", [])}


def newest_versions():
    """The two newest minor versions of Kubernetes that the package has schemas for."""
    folder = Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema"
    versions = {tuple(map(int, re.match(r"v(\d+)\.(\d+)", path.name).groups())) for path in folder.glob("v*-strict")}
    return [f"{major}.{minor}" for major, minor in sorted(versions)[-2:]]


@pytest.mark.parametrize("version", newest_versions())
@pytest.mark.parametrize("install", INSTALLS)
def test_kubernetes_accepts_every_manifest(rendered, install, version):
    known = [document for document in rendered[install] if document["kind"] not in FOREIGN]
    assert len(known) >= 7
    for document in known:
        kubernetes_validate.validate(document, version, strict=True)


@pytest.mark.parametrize("install", INSTALLS)
def test_every_variable_is_one_of_the_gateway(rendered, settings, install):
    # Flags have variables, and the manifests use those.
    (command,) = container_of(rendered[install])["args"]
    known = settings if command == "serve" else settings_of(command)

    for name in environment_of(rendered[install]):
        assert name in known or name.startswith("AWS_"), name


@pytest.mark.parametrize("install", INSTALLS)
def test_probes_ask_where_the_gateway_answers_them_and_names_that_it_knows(rendered, install):
    container = container_of(rendered[install])
    environment = environment_of(rendered[install])
    # On a port of their own, which callers cannot fill; the demo has one port.
    health = "GLACIER_GATEWAY_HEALTH_LISTEN" if install != "dev" else "GLACIER_GATEWAY_LISTEN"
    port = int(environment[health].rpartition(":")[2])

    probes = {name: container[name]["grpc"] for name in ("startupProbe", "readinessProbe", "livenessProbe")}
    assert {probe["port"] for probe in probes.values()} == {port}
    assert probes["startupProbe"]["service"] == probes["readinessProbe"]["service"] == "readiness"
    # What is not ready must not be killed for it.
    assert probes["livenessProbe"]["service"] == "liveness"


@pytest.mark.parametrize("install", INSTALLS)
def test_ports_are_those_that_the_gateway_listens_on(rendered, settings, install):
    container = container_of(rendered[install])
    listening = {"GLACIER_GATEWAY_LISTEN": "grpc", "GLACIER_GATEWAY_ADMIN_LISTEN": "admin", "GLACIER_GATEWAY_HEALTH_LISTEN": "health"}
    environment = environment_of(rendered[install])
    wanted = {name: int(environment[variable].rpartition(":")[2]) for variable, name in listening.items() if variable in environment}

    assert {port["name"]: port["containerPort"] for port in container["ports"]} == wanted
    assert all(environment[variable].startswith("0.0.0.0:") for variable in listening if variable in environment)
    # And those are the defaults, so that documents and manifests speak of the same.
    assert wanted["grpc"] == int(settings["GLACIER_GATEWAY_LISTEN"].rpartition(":")[2])
    for service in (document for document in rendered[install] if document["kind"] == "Service"):
        assert [(port["port"], port["targetPort"]) for port in service["spec"]["ports"]] == [(wanted["grpc"], "grpc")]
        (protocol,) = {port["appProtocol"] for port in service["spec"]["ports"]}
        assert (protocol == "grpcs") == ("GLACIER_GATEWAY_TLS_CERTIFICATE" in environment), protocol


@pytest.mark.parametrize("install", SERVING)
def test_the_termination_grace_is_longer_than_all_that_happens_in_it(rendered, settings, install):
    pod, environment = pod_of(rendered[install]), environment_of(rendered[install])
    before_the_signal = container_of(rendered[install])["lifecycle"]["preStop"]["sleep"]["seconds"]
    after_it = [environment.get(name, settings[name]) for name in ("GLACIER_GATEWAY_LAME_DUCK", "GLACIER_GATEWAY_DRAIN")]

    assert pod["terminationGracePeriodSeconds"] > before_the_signal + sum(map(seconds, after_it))


@pytest.mark.parametrize("install", SERVING)
def test_the_memory_limit_is_twice_the_cache_and_128_mib(rendered, settings, install):
    variable = "GLACIER_GATEWAY_CACHE_CAPACITY"
    capacity = environment_of(rendered[install]).get(variable, settings[variable])

    assert size(container_of(rendered[install])["resources"]["limits"]["memory"]) == 2 * size(capacity) + 128 * 2**20


@pytest.mark.parametrize("install", INSTALLS)
def test_nothing_selects_other_pods_or_misses_ours(rendered, install):
    ours = the("Deployment", rendered[install])["spec"]["template"]["metadata"]["labels"]
    selectors = [document["spec"].get("selector", {}).get("matchLabels") for document in rendered[install] if document["kind"] in
                 ("Deployment", "PodDisruptionBudget", "PodMonitor")]
    selectors += [document["spec"]["selector"] for document in rendered[install] if document["kind"] == "Service"]
    selectors += [document["spec"]["podSelector"]["matchLabels"] for document in rendered[install] if document["kind"] == "NetworkPolicy"]
    assert len(selectors) >= 5
    assert all(selector and selector.items() <= ours.items() for selector in selectors)


@pytest.mark.parametrize("install", INSTALLS)
def test_no_object_is_there_twice(rendered, install):
    objects = [(document["kind"], document["metadata"]["name"]) for document in rendered[install]]
    assert len(set(objects)) == len(objects)
    namespaces = {document["metadata"].get("namespace") for document in rendered[install] if document["kind"] != "Namespace"}
    assert namespaces == {the("Namespace", rendered[install])["metadata"]["name"]}


def test_the_example_uses_every_component_with_an_image_a_region_a_role_and_a_policy_of_its_own(rendered):
    used = yaml.safe_load((KUBERNETES / "example/kustomization.yaml").read_text())["components"]
    assert sorted(used) == [f"../components/{component}" for component in COMPONENTS]

    example, components = rendered["example"], rendered["+".join(("base", *COMPONENTS))]
    for of_your_own in (
        lambda documents: container_of(documents)["image"],
        lambda documents: environment_of(documents)["AWS_REGION"],
        lambda documents: the("ServiceAccount", documents)["metadata"]["annotations"]["eks.amazonaws.com/role-arn"],
        lambda documents: policy_of(documents),
    ):
        assert of_your_own(example) != of_your_own(components)
    # And nothing else differs.
    assert [(o["kind"], o["metadata"]["name"]) for o in example] == [(o["kind"], o["metadata"]["name"]) for o in components]
    assert environment_of(example).keys() == environment_of(components).keys()


@pytest.mark.parametrize("component", COMPONENTS)
def test_a_component_can_be_taken_out_of_the_example(component, tmp_path):
    example = yaml.safe_load((KUBERNETES / "example/kustomization.yaml").read_text())
    example["components"].remove(f"../components/{component}")
    for kind in ("resources", "components"):
        example[kind] = [os.path.relpath(KUBERNETES / "example" / path, tmp_path) for path in example[kind]]
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(example))
    assert container_of(build(tmp_path))["image"].startswith("registry.example.com/")


def test_the_operator_of_prometheus_gets_the_rules_that_are_tested(rendered):
    assert the("PrometheusRule", rendered["base+monitoring"])["spec"] == yaml.safe_load((DEPLOY / "monitoring/rules.yaml").read_text())
    made = subprocess.run([DEPLOY / "monitoring/prometheus-rule"], check=True, capture_output=True, text=True).stdout
    assert (KUBERNETES / "components/monitoring/prometheus-rule.yaml").read_text() == made


def policy_of(documents):
    (configured,) = [o for o in documents if (o["kind"], o["metadata"]["name"]) == ("ConfigMap", "glacier-gateway-policy")]
    return configured["data"]["policy.toml"]


def test_the_policy_file_of_the_component_is_toml_that_allows_somebody(rendered):
    policy = tomllib.loads(policy_of(rendered["base+mtls"]))
    assert policy["allow"] and all({"callers", "accounts", "vaults"} == set(rule) for rule in policy["allow"])


@pytest.mark.parametrize("install", SERVING)
def test_the_gateway_itself_accepts_the_settings_of_the_install(rendered, install, tmp_path):
    documents = rendered[install]
    authority = Authority("of the cluster")
    pair = authority.pair("glacier-gateway")
    # The files of the Secret as cert-manager writes them, and those of the ConfigMap.
    files = {"tls/tls.crt": pair.certificate, "tls/tls.key": pair.key, "tls/ca.crt": authority.certificate}
    for configured in (document for document in documents if document["kind"] == "ConfigMap"):
        files |= {f"policy/{name}": content for name, content in configured["data"].items()}
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    environment = {name: value.replace("/etc/glacier-gateway", str(tmp_path)) for name, value in environment_of(documents).items()}
    has_policy = "GLACIER_GATEWAY_POLICY" in environment
    assert has_policy == (install == "example" or "mtls" in CHOICES.get(install, ()))

    provider = "instance metadata"
    if environment.get("AWS_EC2_METADATA_DISABLED") == "true":
        # What EKS puts into the pod.
        provider = "web identity"
        (tmp_path / "token").write_text("a token")
        environment |= {"AWS_WEB_IDENTITY_TOKEN_FILE": str(tmp_path / "token"), "AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/glacier"}

    command = [GATEWAY, *container_of(documents)["args"], "--check-config"]
    checked = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert (checked.returncode, checked.stderr) == (0, "")
    assert checked.stdout.startswith(f"AWS credentials: would come from {provider}"), checked.stdout
    # It does read them.
    if has_policy:
        (tmp_path / "policy/policy.toml").write_text("[[allow]]\ncallers = 1")
        checked = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
        assert checked.returncode == 2 and "--policy" in checked.stderr


def test_the_role_may_describe_jobs_and_nothing_else():
    (statement,) = json.loads((DEPLOY / "iam/policy.json").read_text())["Statement"]
    assert (statement["Effect"], statement["Action"]) == ("Allow", "glacier:DescribeJob")
    assert statement["Resource"].startswith("arn:aws:glacier:")


def test_only_the_service_account_of_the_manifests_may_take_the_role(rendered):
    account = the("ServiceAccount", rendered["base+irsa"])["metadata"]
    who = (account["namespace"], account["name"])

    (irsa,) = json.loads((DEPLOY / "iam/trust-irsa.json").read_text())["Statement"]
    issuer = irsa["Principal"]["Federated"].partition("oidc-provider/")[2]
    assert irsa["Action"] == "sts:AssumeRoleWithWebIdentity"
    assert irsa["Condition"] == {
        "StringEquals": {f"{issuer}:sub": "system:serviceaccount:{}:{}".format(*who), f"{issuer}:aud": "sts.amazonaws.com"}
    }
    assert f":{ACCOUNT}:" in account["annotations"]["eks.amazonaws.com/role-arn"]

    (pod_identity,) = json.loads((DEPLOY / "iam/trust-pod-identity.json").read_text())["Statement"]
    assert pod_identity["Principal"] == {"Service": "pods.eks.amazonaws.com"}
    assert set(pod_identity["Action"]) == {"sts:AssumeRole", "sts:TagSession"}
    tags = pod_identity["Condition"]["StringEquals"]
    assert (tags["aws:RequestTag/kubernetes-namespace"], tags["aws:RequestTag/kubernetes-service-account"]) == who
