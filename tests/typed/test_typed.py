"""What people write passes `mypy --strict` and pyright as it stands, and what is wrong does not."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache as once
from pathlib import Path

import pytest

from tests.support.lacking import program
from tests.support.node import installed

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
PAGES = (ROOT / "README.md", ROOT / "docs/howto/cache-a-query.md", ROOT / "docs/howto/answer-http.md")
PYRIGHT = "pyright@1.1.408"
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    """Those here, one of the gallery, and the blocks of the pages."""
    folder = tmp_path_factory.mktemp("programs")
    found = [HERE / "as_written.py", HERE / "models.py", HERE / "mistakes.py", ROOT / "examples/pydantic_app.py"]
    for page in PAGES:
        for number, block in enumerate(BLOCK.findall(page.read_text(encoding="utf-8")), start=1):
            found.append(folder / f"{page.stem.replace('-', '_').lower()}_{number}.py")
            found[-1].write_text(block)
    return tuple(found)


def mypy(programs: tuple[Path, ...]) -> Iterator[tuple[str, int, str]]:
    """Yield its errors: file, line, message."""
    options = ["--strict", "--no-error-summary", "--hide-error-context"]
    done = run(sys.executable, "-m", "mypy", *options, *map(str, programs))
    assert not done.stderr, done.stderr
    for line in done.stdout.splitlines():
        place, found, message = line.partition(": error: ")
        if found:
            path, _, number = place.rpartition(":")
            yield path, int(number), message


def pyright(programs: tuple[Path, ...]) -> Iterator[tuple[str, int, str]]:
    """Yield its errors: file, line, message."""
    script = installed(PYRIGHT) / "node_modules/pyright/index.js"
    options = ["--outputjson", "--pythonpath", sys.executable]
    done = run(program("node"), str(script), *options, *map(str, programs))
    said = json.loads(done.stdout)
    assert said["summary"]["filesAnalyzed"] == len(programs)
    for each in said["generalDiagnostics"]:
        if each["severity"] == "error":
            yield each["file"], each["range"]["start"]["line"] + 1, each["message"]


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture(params=[pytest.param(each, marks=pytest.mark.xdist_group(each.__name__)) for each in (mypy, pyright)])
def errors(request: pytest.FixtureRequest, programs: tuple[Path, ...]) -> dict[str, list[tuple[int, str]]]:
    """What a checker says of all programs, by file: lines and messages."""
    return said(request.param, programs)


@once
def said(
    checker: Callable[[tuple[Path, ...]], Iterator[tuple[str, int, str]]], programs: tuple[Path, ...]
) -> dict[str, list[tuple[int, str]]]:
    """Run a checker, once: tests of the two come in any order, and pytest would set a fixture up at each turn."""
    found: dict[str, list[tuple[int, str]]] = {each.name: [] for each in programs}
    for path, line, message in checker(programs):
        found[Path(path).name].append((line, message))
    return found


def test_programs_as_people_write_them_pass(errors: dict[str, list[tuple[int, str]]]) -> None:
    """Those of the pages too: views, their methods, `fresh_after=` and `strict=`."""
    assert len(errors) > len(PAGES) + 2
    assert {name: found for name, found in errors.items() if found and name != "mistakes.py"} == {}


def test_wrong_calls_are_refused_line_by_line(errors: dict[str, list[tuple[int, str]]]) -> None:
    """Every marked line and no other."""
    lines = (HERE / "mistakes.py").read_text().splitlines()
    marked = [number for number, line in enumerate(lines, start=1) if line.endswith("# error")]
    assert [line for line, _ in errors["mistakes.py"]] == marked
