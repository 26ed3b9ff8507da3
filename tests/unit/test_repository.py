"""What holds of the repository as a whole. Cheap, and part of `make check`."""

from __future__ import annotations

import ast
import re
import runpy
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import cachebus

ROOT = Path(__file__).parents[2]
PROGRAMS = ("cachebus", "worker", "handlers", "schedules", "tradesense", "gateway")
FULL_LINES = 500
REGISTRY = re.compile(
    r"\b(?:pypi|pythonhosted|npmjs|rubygems|crates)\.(?:org|com|io)\b|--(?:extra-)?index-url\b", re.IGNORECASE
)
MACHINE = re.compile(r"(?<![\w.}])/(?:work|root|home/\w+|Users/\w+)/\w|[A-Z]:\\Users")
INCLUDE = re.compile(r"^--@include (\w+)$", re.MULTILINE)


def tracked(*suffixes: str, under: tuple[str, ...] = ("",)) -> list[Path]:
    """Return the files of the repository: those that git knows, so that nobody's scratch files count."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    names = [name for name in listed.split("\0") if name.endswith(suffixes or "") and name.startswith(under)]
    files = [ROOT / name for name in names if (ROOT / name).is_file()]
    assert files, f"no file ends with {suffixes} under {under}"
    return files


def sources() -> list[Path]:
    """Return the Python files of library and programs."""
    return tracked(".py", under=tuple(f"{program}/" for program in PROGRAMS))


def nodes(files: list[Path]) -> Iterator[tuple[str, ast.AST]]:
    """Yield each node of each file with its place, as an editor shows it."""
    for file in files:
        for node in ast.walk(ast.parse(file.read_bytes())):
            yield f"{file.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}", node


def imported(node: ast.AST) -> set[str]:
    """Return the top-level packages that a statement imports."""
    if isinstance(node, ast.Import):
        return {name.name.partition(".")[0] for name in node.names}
    if isinstance(node, ast.ImportFrom) and not node.level:
        return {(node.module or "").partition(".")[0]}
    return set()


def scripts() -> dict[str, str]:
    """Return the Lua files by name."""
    return {file.stem: file.read_text() for file in tracked(".lua", under=("cachebus/lua/",))}


def matches(pattern: re.Pattern[str], files: list[Path]) -> list[str]:
    """Return where *pattern* is found."""
    found = []
    for file in files:
        text = file.read_bytes()
        if b"\0" not in text:
            lines = enumerate(text.decode().splitlines(), 1)
            found += [f"{file.relative_to(ROOT)}:{number}: {line}" for number, line in lines if pattern.search(line)]
    return found


def test_nothing_is_pickled() -> None:
    """No module imports a serialiser that runs what it reads."""
    runs_what_it_reads = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "jsonpickle"}
    assert [place for place, node in nodes(sources()) if imported(node) & runs_what_it_reads] == []


def test_nothing_that_leaves_a_process_is_made_with_hash() -> None:
    """`hash()` differs from process to process; it is called in `__hash__` only."""
    found = list(nodes(sources()))
    methods = [node for _, node in found if isinstance(node, ast.FunctionDef) and node.name == "__hash__"]
    allowed = {inner for method in methods for inner in ast.walk(method)}
    calls = [(place, node) for place, node in found if isinstance(node, ast.Call) and node not in allowed]
    assert [place for place, call in calls if isinstance(call.func, ast.Name) and call.func.id == "hash"] == []


def test_no_command_walks_or_empties_a_database() -> None:
    """Neither KEYS nor FLUSHDB, FLUSHALL or SWAPDB is sent, from Python or from Lua: the server is not ours alone."""
    commands = {"KEYS", "FLUSHDB", "FLUSHALL", "SWAPDB"}
    words = [(place, node.value) for place, node in nodes(sources()) if isinstance(node, ast.Constant)]
    assert [place for place, word in words if word in commands] == []
    called = re.compile(r"redis\.p?call\(\s*['\"](\w+)")
    assert [
        name for name, text in scripts().items() if commands & {call.upper() for call in called.findall(text)}
    ] == []


def test_one_module_knows_the_driver() -> None:
    """Only `cachebus.wire` imports redis or hiredis."""
    found = {place.partition(":")[0] for place, node in nodes(sources()) if imported(node) & {"redis", "hiredis"}}
    assert found == {"cachebus/wire.py"}


def test_all_lists_what_can_be_imported() -> None:
    """`cachebus.__all__` names each public object of the package once, and nothing else."""
    public = {name for name, thing in vars(cachebus).items() if name[0] != "_" and not isinstance(thing, ModuleType)}
    assert sorted(cachebus.__all__) == sorted(public)


def test_every_script_says_what_it_is_for() -> None:
    """A script opens with its name and purpose, then KEYS, ARGV and what it returns. Included ones have a purpose."""
    included = {part for text in scripts().values() for part in INCLUDE.findall(text)}
    for name, text in scripts().items():
        lines = text.splitlines()
        header = "\n".join(lines[: next(at for at, line in enumerate(lines) if not line.startswith("-- "))])
        if name in included or header.startswith("-- Shared by "):
            assert header, f"{name}.lua: no header"
        else:
            assert header.startswith(f"-- {name}: "), f"{name}.lua: the first line is '-- {name}: <purpose>'"
            assert ("KEYS" in text) == ("-- KEYS" in header), f"{name}.lua: KEYS in the header as in the body"
            assert ("ARGV" in text) == ("-- ARGV" in header), f"{name}.lua: ARGV in the header as in the body"
            assert "-- returns " in header, f"{name}.lua: no '-- returns'"


def test_scripts_use_what_every_server_has() -> None:
    """What a script includes exists, and it packs lists with cjson: fakeredis has no cmsgpack."""
    for name, text in scripts().items():
        for part in INCLUDE.findall(text):
            assert (ROOT / f"cachebus/lua/{part}.lua").is_file(), f"{name}.lua includes {part}"
        assert "cmsgpack" not in text, f"{name}.lua"


def test_nothing_names_a_registry_or_a_machine() -> None:
    """Where packages are fetched from, and where this was written, is in no file."""
    assert matches(REGISTRY, tracked()) == []
    assert matches(MACHINE, tracked()) == []


def test_nothing_is_left_to_do() -> None:
    """No file of the library or the programs holds a note about work that was not done."""
    files = sources() + tracked(".lua", under=("cachebus/lua/",))
    assert matches(re.compile(r"\b(?:TODO|FIXME|XXX)\b"), files) == []


def test_files_are_of_a_size_one_can_read() -> None:
    """No Python file is longer than 500 lines: one noun a file."""
    sizes = {str(file.relative_to(ROOT)): len(file.read_bytes().splitlines()) for file in tracked(".py")}
    assert {name: size for name, size in sizes.items() if size > FULL_LINES} == {}


@pytest.mark.parametrize("lock", ["requirements.txt", "requirements-dev.txt"])
def test_lock_files_belong_to_the_project_file(lock: str) -> None:
    """A lock file was made from the dependencies that pyproject.toml has now. Mend: make lock."""
    fingerprint = runpy.run_path(str(ROOT / ".ci/lock.py"))["fingerprint"]
    assert (ROOT / lock).read_text().splitlines()[0] == fingerprint(), "make lock"


def test_a_machine_without_python_is_told_what_to_install(tmp_path: Path) -> None:
    """Where the only Python is too old, setting up ends with what is needed, and leaves no environment."""
    (tmp_path / "python3").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "python3").chmod(0o700)
    setup = [str(ROOT / ".ci/venv"), str(tmp_path / "environment"), "requirements-dev.txt"]
    done = subprocess.run(setup, env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "No Python 3.11" in done.stderr
    assert "make PYTHON=" in done.stderr
    assert not (tmp_path / "environment").exists()


def test_ci_runs_what_people_run() -> None:
    """The CI script calls make and has no steps of its own."""
    script = [
        line for line in (ROOT / ".ci/run").read_text().splitlines() if line and not line.startswith(("#", "cd "))
    ]
    assert script == ["set -euo pipefail", "exec make check test"]


def test_the_wheel_holds_the_library_and_nothing_else(tmp_path: Path) -> None:
    """The wheel has cachebus with its types and all its scripts, and no program of this repository."""
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.partition("/")[0] for name in names} == {"cachebus", f"cachebus-{wheel.name.split('-')[1]}.dist-info"}
    library = {str(file.relative_to(ROOT)) for file in tracked(".py", ".lua", "py.typed", under=("cachebus/",))}
    assert library <= set(names)
    assert "cachebus/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
