"""What holds of the repository as a whole. Cheap, and part of `make check`."""

from __future__ import annotations

import ast
import re
import runpy
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import cachebus

ROOT = Path(__file__).parents[2]
PROGRAMS = ("cachebus", "worker", "handlers", "schedules", "tradesense", "gateway")
FULL_LINES = 505
REGISTRY = re.compile(
    r"\b(?:pypi|pythonhosted|npmjs|rubygems|crates)\.(?:org|com|io)\b|--(?:extra-)?index-url\b", re.IGNORECASE
)
MACHINE = re.compile(r"(?<![\w.}])/(?:work|root|home/\w+|Users/\w+)/\w|[A-Z]:\\Users")
INCLUDE = re.compile(r"^--@include ([\w/]+)$", re.MULTILINE)


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
        yield from _nodes(file)


@cache
def _nodes(file: Path) -> list[tuple[str, ast.AST]]:
    name = file.relative_to(ROOT)
    return [(f"{name}:{getattr(node, 'lineno', 0)}", node) for node in ast.walk(ast.parse(file.read_bytes()))]


def imported(node: ast.AST) -> set[str]:
    """Return the top-level packages that a statement imports."""
    if isinstance(node, ast.Import):
        return {name.name.partition(".")[0] for name in node.names}
    if isinstance(node, ast.ImportFrom) and not node.level:
        return {(node.module or "").partition(".")[0]}
    return set()


def scripts() -> dict[str, str]:
    """Return the Lua files by the name they are run by, such as `freshness/invalidate`."""
    files = tracked(".lua", under=("cachebus/",))
    return {f"{file.parents[1].relative_to(ROOT / 'cachebus')}/{file.stem}": file.read_text() for file in files}


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
    """Only `cachebus.redis` does, in two modules: redis-py in `driver`, hiredis in `connection`."""
    found = {place.partition(":")[0] for place, node in nodes(sources()) if imported(node) & {"redis", "hiredis"}}
    assert found == {"cachebus/redis/driver.py", "cachebus/redis/connection.py"}


def test_scripts_are_run_in_one_way() -> None:
    """`Server.run` and `Connection.run` know of digests and texts; `doctor` only asks whether it may run one."""
    words = [(place, node.value) for place, node in nodes(sources()) if isinstance(node, ast.Constant)]
    running = {place.partition(":")[0] for place, word in words if word in {"EVAL", "EVALSHA", "SCRIPT"}}
    assert {place for place in running if not place.startswith("cachebus/redis/")} == {
        "cachebus/monitoring/verdict/examination.py"
    }


def test_all_lists_what_can_be_imported() -> None:
    """Each name of `cachebus.__all__` can be imported, and a type checker is told of the same ones."""
    assert [name for name in cachebus.__all__ if not hasattr(cachebus, name)] == []
    face = ast.parse((ROOT / "cachebus/__init__.py").read_bytes())
    (typed,) = [node for node in face.body if isinstance(node, ast.If)]
    told = [name.asname for node in typed.body if isinstance(node, ast.ImportFrom) for name in node.names]
    assert sorted(told, key=str) == sorted(cachebus.__all__)


def test_every_script_says_what_it_is_for() -> None:
    """A script opens with its name and purpose, then KEYS, ARGV and what it returns. Included ones have a purpose."""
    included = {part for text in scripts().values() for part in INCLUDE.findall(text)}
    for name, text in scripts().items():
        lines = text.splitlines()
        header = "\n".join(lines[: next(at for at, line in enumerate(lines) if not line.startswith("-- "))])
        if name in included or header.startswith("-- Shared by "):
            assert header, f"{name}.lua: no header"
        else:
            assert header.startswith(f"-- {name.rpartition('/')[2]}: "), (
                f"{name}: the first line is '-- <name>: <purpose>'"
            )
            assert ("KEYS" in text) == ("-- KEYS" in header), f"{name}.lua: KEYS in the header as in the body"
            assert ("ARGV" in text) == ("-- ARGV" in header), f"{name}.lua: ARGV in the header as in the body"
            assert "-- returns " in header, f"{name}.lua: no '-- returns'"


def test_scripts_use_what_every_server_has() -> None:
    """A script packs lists with cjson: fakeredis has no cmsgpack."""
    assert [name for name, text in scripts().items() if "cmsgpack" in text] == []


def test_scripts_include_only_what_lies_below() -> None:
    """What a script includes exists, in its own room or in a room on a lower floor, as the import contract has them."""
    contract = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    floors = next(each["layers"] for each in contract if each["name"].startswith("Floors of the library"))
    floor = {room.strip(): -height for height, layer in enumerate(floors) for room in layer.split("|")}
    every = scripts()
    for name, text in every.items():
        room = name.partition("/")[0]
        for part in INCLUDE.findall(text):
            assert part in every, f"{name} includes {part}, which is not there"
            below = part.partition("/")[0]
            assert below == room or floor[below] < floor[room], f"{name} includes {part}, which lies above it"


def test_nothing_names_a_registry_or_a_machine() -> None:
    """Where packages are fetched from, and where this was written, is in no file."""
    assert matches(REGISTRY, tracked()) == []
    assert matches(MACHINE, tracked()) == []


def test_the_library_knows_no_application() -> None:
    """No file of the library names the example's domain: another team reads it and finds nothing of ours."""
    domain = re.compile(r"tradesense|\btrades?\b|TradeEvent|portfolio|\bmarkets?:|\bsymbol:", re.IGNORECASE)
    assert matches(domain, tracked(under=("cachebus/",))) == []


def test_nothing_is_left_to_do() -> None:
    """No file of the library or the programs holds a note about work that was not done."""
    files = sources() + tracked(".lua", under=("cachebus/",))
    assert matches(re.compile(r"\b(?:TODO|FIXME|XXX)\b"), files) == []


def test_files_are_of_a_size_one_can_read() -> None:
    """No Python file is longer than 500 lines: one noun a file."""
    sizes = {str(file.relative_to(ROOT)): len(file.read_bytes().splitlines()) for file in tracked(".py")}
    assert {name: size for name, size in sizes.items() if size > FULL_LINES} == {}


@pytest.mark.parametrize("lock", ["requirements.txt", "requirements-run.txt", "requirements-dev.txt"])
def test_lock_files_belong_to_the_project_file(lock: str) -> None:
    """A lock file was made from the dependencies that pyproject.toml has now; `make lock` makes it."""
    fingerprint = runpy.run_path(str(ROOT / ".ci/lock.py"))["fingerprint"]
    assert (ROOT / lock).read_text().splitlines()[0] == fingerprint(), "make lock"


def test_the_synchronous_forwarders_are_those_of_the_present_signatures() -> None:
    """`cachebus/sync/forwarders.py` is what `make forwarders` writes."""
    written = runpy.run_path(str(ROOT / ".ci/forwarders.py"))["forwarders"]()
    assert (ROOT / "cachebus/sync/forwarders.py").read_text() == written, "make forwarders"


def test_a_machine_without_python_is_told_what_to_install(tmp_path: Path) -> None:
    """Where the only Python is too old, setting up ends with what is needed, and leaves no environment."""
    (tmp_path / "python3").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "python3").chmod(0o700)
    setup = [str(ROOT / ".ci/venv"), str(tmp_path / "environment"), "requirements-dev.txt"]
    done = subprocess.run(setup, env={"PATH": str(tmp_path)}, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "No Python 3.11" in done.stderr
    assert "make PYTHON=" in done.stderr
    assert not (tmp_path / "environment").exists()


def test_where_pyenv_lacks_the_wanted_python_another_one_is_used(tmp_path: Path) -> None:
    """pyenv runs no Python at all then: setting up uses one of those it has, and says that it is not the one wanted."""
    made = 'mkdir -p "$4/bin" && ln -s /bin/true "$4/bin/python" && exit'
    shim = (
        f'#!/bin/sh\n[ -n "$PYENV_VERSION" ] || exit 1\n[ "$2" != venv ] || {{ {made}; }}\nexec {sys.executable} "$@"\n'
    )
    for name in ("python3", "python3.11", "python3.12", "python3.13", "python3.14"):
        (tmp_path / name).write_text(shim)
        (tmp_path / name).chmod(0o700)
    (tmp_path / "pyenv").write_text("#!/bin/sh\necho 3.11.7\n")
    (tmp_path / "pyenv").chmod(0o700)
    (tmp_path / ".python-version").write_text("3.99\n")
    (tmp_path / "none.txt").touch()
    setup = [str(ROOT / ".ci/venv"), "environment", "none.txt"]
    path = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    done = subprocess.run(setup, env=path, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "3.99, which .python-version names, was not found" in done.stdout
    assert (tmp_path / "environment/bin/python").exists()


def test_the_platforms_get_one_python() -> None:
    """Heroku and Railway read `.python-version`; the image of the Dockerfile is of the same one."""
    wanted = (ROOT / ".python-version").read_text().strip()
    images = re.findall(r"^FROM (\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert set(images) == {f"python:{wanted}-slim"}


def test_the_workflow_runs_what_people_run() -> None:
    """It calls make on each Python that the package names, and on no other."""
    workflow = (ROOT / ".github/workflows/ci.yml").read_text()
    assert re.findall(r"run: (.*)", workflow) == ["make check test"]
    classifiers = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["classifiers"]
    named = [found[0] for each in classifiers if (found := re.findall(r":: (3\.\d+)$", each))]
    assert re.findall(r'"(3\.\d+)"', workflow) == named


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


@pytest.mark.xdist_group("together")
def test_tests_of_a_group_are_kept_together(request: pytest.FixtureRequest) -> None:
    """Without its group in a test's id xdist deals the tests out one by one: slower, and nothing else would say so."""
    dealt_in_groups = getattr(request.config.option, "loadgroup", False)
    assert request.node.nodeid.endswith("@together") is dealt_in_groups
