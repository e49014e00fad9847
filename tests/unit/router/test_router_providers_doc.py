"""docs/providers.md promises only what a test shows."""

from __future__ import annotations

import re
from pathlib import Path


def test_every_test_the_page_names_exists():
    named = set(re.findall(r"`(test_\w+)`", Path("docs/providers.md").read_text()))
    defined = set()
    for path in Path("tests").rglob("test_*.py"):
        defined.update(re.findall(r"^(?:async )?def (test_\w+)", path.read_text(), flags=re.MULTILINE))
    assert len(named) > 40
    assert named - defined == set()


def test_every_provider_links_the_tests_that_show_it():
    sections = re.split(r"^## ", Path("docs/providers.md").read_text(), flags=re.MULTILINE)[1:]
    assert len(sections) >= 5
    for section in sections:
        links = re.findall(r"\]\(\.\./(tests/[\w/.]+)\)", section)
        assert links, section.splitlines()[0]
        assert all(Path(link).exists() for link in links)
