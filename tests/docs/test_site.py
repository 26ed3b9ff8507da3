"""The documentation as a site: whole, written from the code, and fit for a phone, a keyboard and no network."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import cachebus
from tests.chaos.rounds import HARNESSES
from tests.docs import promises, threats
from tests.docs.look import SITE, look_at
from tests.docs.written import API, DOCS, PAGES, ROOT, navigation, used_names
from tests.support.browsing import needs_chromium

PROMINENT = ["index.html", "reference/api/locks.html"]
"""The suite looks at these, `python -m tests.docs.look` at all."""


@pytest.mark.parametrize("name", PAGES)
def test_a_written_page_is_what_the_code_says(name: str) -> None:
    """`make pages` was run after the last change."""
    assert (DOCS / name).read_text(encoding="utf-8") == PAGES[name](), "make pages"


def test_every_page_is_in_the_navigation() -> None:
    """No page that only its author finds, none that is not there; llms.txt names the same."""
    listed = [page for _, page in navigation()]
    assert sorted(listed) == sorted(DOCS.rglob("*.md"))
    assert re.findall(r"\]\(([\w/.-]+\.md)\)", PAGES["llms.txt"]()) == [str(page.relative_to(DOCS)) for page in listed]


def test_everypublic_name_has_its_place_in_the_reference() -> None:
    """Each once; errors have a table of their own."""
    pages = [name for _, names in API.values() for name in names.split()]
    errors = (DOCS / "reference/api/errors.md").read_text()
    rest = [name for name in cachebus.__all__ if name not in pages]
    assert sorted(pages) == sorted(set(pages))
    assert set(pages) <= set(cachebus.__all__)
    assert [name for name in rest if f"| `{name}` |" not in errors] == []


def test_every_name_in_redis_is_on_its_page() -> None:
    """What the code calls a key or a channel is in the table, or below it."""
    page = (DOCS / "reference/keys.md").read_text()
    assert [word for word in used_names() if not re.search(rf"`\{{?ns\}}?:{re.escape(word)}[:`]", page)] == []


def test_what_is_promised_and_what_is_threatened_is_tested() -> None:
    """Each test that a promise or a threat names exists, and so does each harness."""
    promised = [promise for section in promises.SECTIONS.values() for promise in section]
    tried = [threat.test for section in threats.SECTIONS.values() for threat in section]
    names = [name for promise in promised for name in promise.tests] + tried
    assert [name for name in names if not exists(name)] == []
    harnesses = {harness.name for harness in HARNESSES}
    assert {promise.harness for promise in promised} - {""} == harnesses
    assert len(tried) == len(set(tried)), "one test tries one thing"


def exists(name: str) -> bool:
    """Return whether there is such a test."""
    file, _, function = name.partition("::")
    path = ROOT / "tests" / file
    return path.exists() and re.search(rf"^(?:async )?def {function}\(", path.read_text(), re.MULTILINE) is not None


@pytest.mark.timeout(300)
@needs_chromium
def test_the_site_is_for_everybody() -> None:
    """Built strictly; axe finds nothing, nothing is wider than 360 px, and nothing is asked of another host."""
    shutil.rmtree(SITE, ignore_errors=True)
    program = Path(sys.executable).with_name("zensical")
    built = subprocess.run([program, "build", "--strict"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    assert asyncio.run(look_at(PROMINENT)) == []
