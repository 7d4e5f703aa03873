"""The operator's page, compared with what the gateway says of itself."""

import re
from pathlib import Path

from settings import Setting, settings_of

DEPLOY = Path(__file__).parents[2] / "deploy"


def test_the_settings_table_is_what_the_help_says():
    rows = re.findall(r"^\| `(--[a-z-]+)` \| `(\w+)` \| (?:`([^`]*)`)? ?\|", (DEPLOY / "README.md").read_text(), re.MULTILINE)
    written = {Setting(flag, variable, default or None) for flag, variable, default in rows}
    assert written == set(settings_of("serve").values())


def test_every_file_that_the_page_links_to_is_there():
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", (DEPLOY / "README.md").read_text())
    assert len(links) > 8
    assert [link for link in links if not (DEPLOY / link).exists()] == []
