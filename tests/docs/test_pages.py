"""What the pages say works: every Python block is run as a program, every link leads somewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cachebus.private_server import PrivateServer

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "docs/howto/cache-a-query.md"]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#:]+)\)")


@pytest.fixture(scope="session")
def server() -> Iterator[PrivateServer]:
    """A Valkey for the pages."""
    with PrivateServer.start("appendonly no") as running:
        yield running


BLOCKS = {
    f"{page.name}-{number}": code
    for page in PAGES
    for number, code in enumerate(BLOCK.findall(page.read_text(encoding="utf-8")), start=1)
}


@pytest.mark.parametrize("name", list(BLOCKS))
def test_a_block_of_a_page_runs_as_it_stands(server: PrivateServer, tmp_path: Path, name: str) -> None:
    """Pasted into a file and run, it works."""
    program = tmp_path / f"{name}.py"
    program.write_text(BLOCKS[name])
    environment = {**os.environ, "REDIS_URL": server.url, "PYTHONPATH": str(ROOT), "CACHE_NAMESPACE": "pages"}
    done = subprocess.run(
        [sys.executable, str(program)],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "page", sorted(ROOT.glob("*.md")) + sorted(ROOT.glob("docs/**/*.md")), ids=lambda page: page.name
)
def test_every_link_leads_to_a_file(page: Path) -> None:
    """No page points at one that is not there."""
    for target in LINK.findall(page.read_text()):
        assert (page.parent / target).exists(), target
