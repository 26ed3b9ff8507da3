"""The blocks of the pages about testing and watching: programs are run, test files are run by pytest."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from cachebus.integrations.metric_table import TABLE

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


def test_test_files_of_the_page_about_testing_pass(tmp_path: Path) -> None:
    """All of them, collected by pytest in its automatic mode."""
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n"
    )
    for block in blocks("test-your-code.md"):
        named = FILE.match(block)
        assert named is not None
        name = "test_with_fixture.py" if named[1] == "conftest.py" else named[1]
        (tmp_path / name).write_text(block)
    said = run("-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", ".", cwd=tmp_path)
    assert "16 passed" in said, said


def test_the_table_of_instruments_is_whole() -> None:
    """What is published is described, by its name or the end of it."""
    page = (ROOT / "docs/howto/watch-with-opentelemetry.md").read_text()
    dotted = [row.name.replace("_", ".") for row in TABLE.values() if row.part == "cache"]
    short = {name: name.partition(".")[2] for name in dotted}
    missing = [name for name in dotted if f"`cachebus.{name}`" not in page and f"`….{short[name]}`" not in page]
    assert missing == []
