"""h2spec, all sections, against the listener. What fails is listed in h2spec/known.txt with its reason, and nothing else may.

A line there says "always", where a test that passes is a line too many, or "sometimes", where two things race.
"""

import subprocess
from pathlib import Path
from xml.etree import ElementTree

from wire import DESCRIBE_JOB

KNOWN = Path(__file__).parent / "h2spec" / "known.txt"


def known():
    """Pairs of section and test by how often they fail."""
    found = {"always": set(), "sometimes": set()}
    for line in KNOWN.read_text().splitlines():
        if line and not line.startswith("#"):
            often, section, test, reason = (part.strip() for part in line.split(" | "))
            assert reason, line
            found[often].add((section, test))
    return found


def test_h2spec_finds_what_is_known_and_nothing_else(gateway, tmp_path):
    host, port = gateway.address.rsplit(":", 1)
    report = tmp_path / "report.xml"
    command = ["h2spec", "-h", host, "-p", port, "-P", DESCRIBE_JOB, "-j", str(report), "generic", "http2", "hpack"]
    ran = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=80)
    cases = list(ElementTree.parse(report).iter("testcase"))
    assert len(cases) > 140, ran.stdout
    failed = {
        (case.get("package"), case.get("classname"))
        for case in cases
        if case.find("error") is not None or case.find("failure") is not None
    }
    expected = known()
    assert failed - expected["always"] - expected["sometimes"] == set(), ran.stdout
    assert expected["always"] - failed == set(), "passes by now: take it off the list"
