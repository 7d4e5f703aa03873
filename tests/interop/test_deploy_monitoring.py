"""The dashboard and the rules under `deploy/monitoring`: the rules' own unit tests, and whether everything that they
query exists and is explained."""

import json
import re
import subprocess
import urllib.request
from pathlib import Path

import pytest
import yaml

from process import running_gateway
from upstream import PreparedGlacier

DEPLOY = Path(__file__).parents[2] / "deploy"
MONITORING = DEPLOY / "monitoring"
OPERATORS_PAGE = DEPLOY / "README.md"
# What Prometheus makes itself, and what kube-state-metrics tells.
FOREIGN = {"up", "kube_deployment_status_replicas_available"}
# Metrics that there are only with TLS, or only with credentials that expire.
ONLY_SOMETIMES = {f"glacier_gateway_{what}_expiry_timestamp_seconds" for what in ("tls_certificate", "tls_client_ca", "credentials")}


def rules():
    return [rule for group in yaml.safe_load((MONITORING / "rules.yaml").read_text())["groups"] for rule in group["rules"]]


def dashboard():
    return json.loads((MONITORING / "dashboard.json").read_text())


def panels():
    """The panels that show something: all but the headings of rows."""
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def queries():
    found = [rule["expr"] for rule in rules()]
    found += [target["expr"] for panel in panels() for target in panel["targets"]]
    assert len(found) > 40
    return found


def queried_names():
    """The metrics that dashboard and rules name, apart from what the rules themselves record."""
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    names = set()
    for query in queries():
        without_strings = re.sub(r'"[^"]*"', "", query)
        # A name is followed by a selector, or carries one of our prefixes.
        names |= set(re.findall(r"([a-z_:][a-z0-9_:]*)\s*\{", without_strings))
        names |= set(re.findall(r"\b(?:glacier_gateway|grpc_server|process)_[a-z0-9_]+\b(?!:)", without_strings))
    names -= recorded
    assert len(names) > 15
    return names


def explained():
    """The metrics of the operator's page: the rows that begin with a name."""
    return set(re.findall(r"^\| `([a-z_]+)", OPERATORS_PAGE.read_text(), re.MULTILINE))


@pytest.fixture(scope="module")
def scraped():
    """The names of the samples of a gateway that has just started."""
    glacier = PreparedGlacier()
    with running_gateway(glacier.url, admin_listen="127.0.0.1:0") as gateway:
        with urllib.request.urlopen(f"http://{gateway.admin_address}/metrics", timeout=10) as answer:
            text = answer.read().decode()
    glacier.close()
    return set(re.findall(r"^([a-z_]+)(?:\{| )", text, re.MULTILINE))


def test_the_rules_pass_their_own_tests():
    for command in (["check", "rules", "rules.yaml"], ["test", "rules", "rules.test.yaml"]):
        ended = subprocess.run(["promtool", *command], cwd=MONITORING, capture_output=True, text=True)
        assert ended.returncode == 0, ended.stdout + ended.stderr


def test_every_alert_has_a_unit_test_that_makes_it_fire():
    tests = yaml.safe_load((MONITORING / "rules.test.yaml").read_text())["tests"]
    firing = {case["alertname"] for test in tests for case in test.get("alert_rule_test", []) if case.get("exp_alerts")}
    assert firing == {rule["alert"] for rule in rules() if "alert" in rule}


def test_the_operators_page_says_what_to_do_for_each_alert():
    sections = set(re.findall(r"^### (GlacierGateway\w+)$", OPERATORS_PAGE.read_text(), re.MULTILINE))
    assert sections == {rule["alert"] for rule in rules() if "alert" in rule}


def anchors(page):
    """What a link into a page can end with: the headings as a forge names them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^a-z0-9 _-]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_alert_links_to_its_section_of_the_operators_page():
    for alert in (rule for rule in rules() if "alert" in rule):
        page, _, anchor = alert["annotations"]["runbook_url"].partition("#")
        assert DEPLOY.parent / page == OPERATORS_PAGE
        assert anchor == alert["alert"].lower() and anchor in anchors(OPERATORS_PAGE)


def test_no_query_adds_up_over_namespaces():
    aggregation = re.compile(r"\b(?:sum|min|max|avg|count|topk|quantile)\b\s*(by \(([^)]*)\))?")
    for query in queries():
        for found in aggregation.finditer(query):
            assert found[2] and "namespace" in re.split(r",\s*", found[2]), query


def test_every_metric_that_is_queried_is_explained():
    families = {re.sub(r"_(bucket|count|sum)$", "", name) for name in queried_names() - FOREIGN}
    assert families - explained() == set()


def test_every_metric_that_is_queried_is_exposed(scraped):
    assert queried_names() - scraped - FOREIGN - ONLY_SOMETIMES == set()


def test_the_dashboard_is_one_that_grafana_can_show():
    board = dashboard()
    assert board["title"] and board["uid"] and board["schemaVersion"] >= 39
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    assert all(panel["title"] and panel["targets"] and panel["datasource"]["uid"] == "${datasource}" for panel in panels())


def test_no_panel_covers_another_and_every_one_is_below_the_heading_of_a_row():
    taken = {}
    for panel in dashboard()["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24, panel["title"]
        for cell in ((x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])):
            assert cell not in taken, (panel["title"], taken[cell])
            taken[cell] = panel["title"]
    # In the file, too, since Grafana goes by its order.
    order = [(panel["gridPos"]["y"], panel["gridPos"]["x"]) for panel in dashboard()["panels"]]
    assert order == sorted(order)
    assert dashboard()["panels"][0]["type"] == "row"
    assert all(panel["gridPos"] | {"h": 1, "w": 24, "x": 0} == panel["gridPos"] for panel in dashboard()["panels"] if panel["type"] == "row")


def test_every_query_of_the_dashboard_heeds_the_namespaces_and_instances_that_were_chosen():
    variables = {variable["name"]: variable for variable in dashboard()["templating"]["list"]}
    for name in ("namespace", "instance"):
        # "All" is more than those with such a label.
        assert (variables[name]["includeAll"], variables[name]["multi"], variables[name]["allValue"]) == (True, True, ".*")
    for target in (target for panel in panels() for target in panel["targets"]):
        selectors = re.findall(r"\{([^}]*)\}", target["expr"])
        assert selectors
        for selector in selectors:
            assert 'job="glacier-gateway", namespace=~"$namespace", instance=~"$instance"' in selector, target["expr"]


def test_prometheus_parses_every_query_of_the_dashboard(tmp_path):
    # As rules, since that is what promtool reads; a duration stands for Grafana's interval.
    expressions = [query.replace("$__rate_interval", "5m") for query in queries()]
    made = [{"record": f"dashboard:query{number}", "expr": query} for number, query in enumerate(expressions)]
    file = tmp_path / "queries.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": made}]}))
    ended = subprocess.run(["promtool", "check", "rules", file], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr
