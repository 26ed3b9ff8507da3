"""An application is loaded by name, and everything wrong with it is said at once."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cachebus import View
from cachebus.worker.loading import find_cache, scan

Write = Callable[[str, str], None]

DECLARES = """
from cachebus import Cache
cache = Cache.memory()

@cache.view("{name}:{{number}}", ttl="1m")
async def declared(number: int) -> int:
    return number
"""


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Write a module of a package that only this test can import."""
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)

    def write(name: str, text: str) -> None:
        path = tmp_path.joinpath(*name.split("."))
        path.parent.mkdir(parents=True, exist_ok=True)
        for folder in path.parents:
            if folder == tmp_path:
                break
            (folder / "__init__.py").touch()
        path.with_suffix(".py").write_text(text)

    yield write
    for name in set(sys.modules) - before:
        del sys.modules[name]


def found(packages: tuple[str, ...], problems: list[str]) -> list[View[Any, Any]]:
    """Scan for views: declarations with a name, as handlers and jobs are."""
    return scan("HANDLERS", packages, View, problems)


def test_everything_in_a_package_is_found_at_any_depth(write: Write) -> None:
    """Modules and packages below count; the order is that of their names, the same in every worker."""
    write("area.second", DECLARES.format(name="b"))
    write("area.first", DECLARES.format(name="a"))
    write("area.below.third", DECLARES.format(name="c"))
    problems: list[str] = []
    assert [view.name for view in found(("area",), problems)] == ["c:{number}", "a:{number}", "b:{number}"]
    assert problems == []


def test_one_that_is_imported_elsewhere_counts_once(write: Write) -> None:
    """A module may use what another declares; it is still one declaration."""
    write("area.first", DECLARES.format(name="a"))
    write("area.second", "from area.first import declared")
    problems: list[str] = []
    assert len(found(("area", "area.first"), problems)) == 1
    assert problems == []


def test_all_that_is_wrong_is_listed_at_once(write: Write) -> None:
    """A module that fails, one with a typo, a package that is not there, two of one name: one list."""
    write("area.first", DECLARES.format(name="a"))
    write("area.second", DECLARES.format(name="a"))
    write("area.third", "\n\nraise ValueError('no such channel')")
    write("area.fourth", "def broken(:")
    write("area.fifth", "from cachebus import Cache\n\ncache = Cache.memory()\ncache.view('a:{none}')(lambda: 1)")
    write("area.sixth", "import sys\nsys.exit(5)")
    problems: list[str] = []
    found(("area", "nowhere"), problems)
    assert len(problems) == 6
    said = "\n".join(problems)
    assert "'a:{number}' is declared in area.first and in area.second; rename one" in said
    assert "area.third cannot be imported: ValueError: no such channel" in said
    assert "third.py:3" in said
    assert "area.fourth cannot be imported: SyntaxError: " in said
    assert "fourth.py:1)" in said
    assert "there is no module 'nowhere'" in said
    assert "area.fifth cannot be imported: ConfigurationError: " in said
    assert "fifth.py:4)" in said  # where the application says it, not where the library refuses it
    assert "area.sixth cannot be imported: SystemExit: 5" in said


def test_the_cache_is_found_by_name(write: Write) -> None:
    """`package.module:name` is a Cache, or it is said what it is instead."""
    write("area.views", DECLARES.format(name="a"))
    problems: list[str] = []
    assert find_cache("CACHE", ("area.views", "cache"), problems) is not None
    assert find_cache("CACHE", ("area.views", "absent"), problems) is None
    assert find_cache("CACHE", ("area.nowhere", "cache"), problems) is None
    assert problems == [
        "CACHE: there is no 'absent' in area.views",
        f"CACHE: there is no module 'area.nowhere' in {Path.cwd()} or among the installed packages",
    ]
