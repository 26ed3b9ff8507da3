"""The pages for people who come from another library: every cell of the right column is run, in order."""

from __future__ import annotations

import ast
import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cachebus import Cache

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs/howto").glob("move-from-*.md"))
ROW = re.compile(r"^\| (?P<old>.+?) \| (?P<new>.+) \|$", re.MULTILINE)
CODE = re.compile(r"`([^`]+)`")
NO_PYTHON = re.compile(r"[A-Z_]+=\w+|manage\.py .+")
"""A variable of the environment, a command."""
RUNNER = """
import ast, asyncio, inspect, re, sys

rows, names = ast.literal_eval(sys.stdin.read()), {"__name__": "__main__"}

with asyncio.Runner() as runner:
    for row in rows:
        code = compile(row, row, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        if code.co_flags & inspect.CO_COROUTINE:
            runner.run(eval(code, names))
        else:
            exec(code, names)
    cache = names["cache"]
    if hasattr(cache, "facade"):
        cache = cache.facade
    closing = cache.close()
    if closing is not None:
        runner.run(closing)
"""


def rows(page: Path) -> list[tuple[str, str]]:
    """Return the cells of the table, without its head."""
    return [(row["old"], row["new"]) for row in ROW.finditer(page.read_text()) if "`" in row["old"]]


def runnable(cell: str, number: int) -> str | None:
    """Return what the cell has one write in Python: a statement, or a decorator, which gets a function below it."""
    found = CODE.match(cell)
    if found is None or NO_PYTHON.fullmatch(found[1]):
        return None
    code = found[1]
    if code.startswith("@"):
        text = re.search(r'"([^"]*)"', code)
        fields = re.findall(r"{(\w+)}", text[1]) if text is not None and ".view(" in code else []
        kind = "async def" if ".view(" in code else "def"
        parameters = ", ".join(f"{field}: int" for field in fields)
        code = f"{code}\n{kind} function_{number}({parameters}) -> int:\n    return 1"
    ast.parse(code)
    return code


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_right_column_runs(page: Path) -> None:
    """From the page's first block on; what is no Python there is little, and says in words what to do."""
    (first,) = re.findall(r"^```python\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
    cells = [runnable(new, number) for number, (_, new) in enumerate(rows(page))]
    code = [cell for cell in cells if cell is not None]
    assert len(code) >= 9
    assert len(code) >= len(cells) * 2 / 3
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", RUNNER],
        input=repr([first, *code]),
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "REDIS_ENABLED": "false"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_left_column_is_python(page: Path) -> None:
    """What people look for is what they have written."""
    for old, _ in rows(page):
        for code in CODE.findall(old):
            ast.parse(f"{code}\ndef function(): ..." if code.startswith("@") else code)


def test_the_row_of_optimistic_lock_loses_no_write() -> None:
    """What somebody else writes between the read and the write stays."""
    (page,) = (page for page in PAGES if page.stem == "move-from-aiocache")
    (cell,) = (new for old, new in rows(page) if "OptimisticLock" in old)
    *before, write = (runnable(cell, 0) or "").split("; ")
    steps = "\n    ".join([*before, 'await cache.set("key", 100, 10)', write, 'return await cache.get("key")'])
    names: dict[str, Any] = {}
    exec(f"async def row(cache):\n    {steps}", names)  # noqa: S102 - a cell of the page

    async def run() -> Any:
        async with Cache.memory() as cache:
            await cache.set("key", 1, 10)
            return await names["row"](cache)

    assert asyncio.run(run()) == 100
