"""What the pages say works: every Python block is a program that runs, every link leads somewhere."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from cachebus.testing.server import PrivateServer
from tests.support.pasted import Pasting

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))]
BLOCK = re.compile(r"^(?:<!-- (?P<marked>.*) -->\n)?```python\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#:]+)\)")
OF_THE_EXAMPLE = ROOT / "docs/reference/domain.md"
"""Its blocks want a database: tests/tradesense/test_domain_page.py runs them."""


def blocks(page: Path) -> list[re.Match[str]]:
    """Return the Python blocks of a page, but those with a file's name: those are the tutorial's."""
    return list(BLOCK.finditer(page.read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def pasting() -> Iterator[Pasting]:
    """Where programs are run."""
    with Pasting() as running:
        yield running


PROGRAMS = {
    f"{page.stem}-{number}": block["code"]
    for page in PAGES
    if page != OF_THE_EXAMPLE
    for number, block in enumerate(blocks(page), start=1)
    if block["marked"] is None
}


@pytest.mark.parametrize("name", list(PROGRAMS))
def test_a_block_of_a_page_runs_as_it_stands(
    server: PrivateServer, pasting: Pasting, namespace: str, tmp_path: Path, name: str
) -> None:
    """Pasted into a file and run, it works."""
    pasting.run(PROGRAMS[name], tmp_path, REDIS_URL=server.url, CACHE_NAMESPACE=namespace)


def test_what_is_no_program_says_so() -> None:
    """A block that needs more than Redis names that above it: a framework's own shell, a vendor's library."""
    marked = [block["marked"] for page in PAGES for block in blocks(page) if block["marked"] is not None]
    assert [mark for mark in marked if not re.match(r"(in|needs): \S", mark)] == []
    assert len(marked) <= 5, "what cannot be pasted teaches less: mend the block"


@pytest.mark.parametrize(
    "page", sorted(ROOT.glob("*.md")) + sorted(ROOT.glob("docs/**/*.md")), ids=lambda page: page.name
)
def test_every_link_leads_to_a_file(page: Path) -> None:
    """No page points at one that is not there."""
    for target in LINK.findall(page.read_text()):
        assert (page.parent / target).exists(), target
