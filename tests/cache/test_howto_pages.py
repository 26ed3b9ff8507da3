"""The blocks of the pages about testing and watching: programs are run, test files are run by pytest."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cachebus.telemetry.counters import GAUGES, HITS, TOTALS, VIEW_COUNTERS

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"# (\w+\.py)\n")


def run(*command: str, cwd: Path) -> str:
    """Run a program of the environment; return what it said, if it went well."""
    done = subprocess.run(
        [sys.executable, *command],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def blocks(page: str) -> list[str]:
    """Return the Python blocks of a page."""
    return BLOCK.findall((ROOT / "docs/howto" / page).read_text(encoding="utf-8"))


@pytest.mark.parametrize("number", range(3))
def test_programs_about_watching_run_as_they_stand(tmp_path: Path, number: int) -> None:
    """Pasted into a file, each works."""
    found = blocks("watch-with-opentelemetry.md")
    assert len(found) == 3
    (tmp_path / "program.py").write_text(found[number])
    run("program.py", cwd=tmp_path)


def test_test_files_of_the_page_about_testing_pass(tmp_path: Path) -> None:
    """All of them, collected by pytest in its automatic mode."""
    (tmp_path / "pytest.ini").write_text("[pytest]\nasyncio_mode = auto\n")
    for block in blocks("test-your-code.md"):
        named = FILE.match(block)
        assert named is not None
        name = "test_with_fixture.py" if named[1] == "conftest.py" else named[1]
        (tmp_path / name).write_text(block)
    said = run("-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", ".", cwd=tmp_path)
    assert "13 passed" in said, said


def test_the_table_of_instruments_is_whole() -> None:
    """What is published is described, by its name or the end of it."""
    page = (ROOT / "docs/howto/watch-with-opentelemetry.md").read_text()
    names = [HITS[0], *[each.name for each in (*VIEW_COUNTERS, *GAUGES, *TOTALS)]]
    dotted = [name.replace("_", ".") for name in names]
    short = {name: name.partition(".")[2] for name in dotted}
    missing = [name for name in dotted if f"`cachebus.{name}`" not in page and f"`….{short[name]}`" not in page]
    assert missing == []
