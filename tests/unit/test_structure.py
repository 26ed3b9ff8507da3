"""The shape of the house, as ARCHITECTURE.md counts it: rooms, floors, sizes, names."""

from __future__ import annotations

import ast
import tomllib
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import grimp

ROOT = Path(__file__).parents[2]
LIBRARY = ROOT / "cachebus"
APPLICATION = ("worker", "gateway", "handlers", "schedules", "tradesense")

MOST_IN_A_FOLDER = 15
MOST_ROOMS = 28
MOST_FLOORS = 9
LONGEST_FILE = 400
LONGEST_CLASS = 300
MOST_PARAMETERS = 8


def sources() -> Iterator[Path]:
    """Yield the files of the library and the application."""
    for folder in (LIBRARY, *(ROOT / name for name in APPLICATION)):
        yield from (path for path in sorted(folder.rglob("*.py")) if "templates" not in path.relative_to(ROOT).parts)


def classes() -> Iterator[tuple[Path, ast.ClassDef]]:
    """Yield each class of the library with its file."""
    for path in sources():
        yield from ((path, node) for node in ast.walk(ast.parse(path.read_bytes())) if isinstance(node, ast.ClassDef))


def counts() -> dict[str, int]:
    """Return what ARCHITECTURE.md says of the library's shape."""
    rooms = [path for path in LIBRARY.iterdir() if (path / "__init__.py").exists()]
    lone = [path for path in LIBRARY.glob("*.py") if path.name not in {"__init__.py", "__main__.py"}]
    return {"rooms": len(rooms), "files beside them": len(lone), "floors": len(floors())}


def floors() -> list[str]:
    """Return the floors of the import contract, the top one first."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (library,) = (each["layers"] for each in contracts if each["name"].startswith("Floors of the library"))
    return list(library)


def test_a_folder_holds_what_one_can_survey() -> None:
    """No folder has more than 15 modules."""
    held = Counter(path.parent for path in sources() if path.name != "__init__.py")
    assert {str(folder.relative_to(ROOT)): n for folder, n in held.items() if n > MOST_IN_A_FOLDER} == {}


def test_the_top_drawing_fits_a_page() -> None:
    """At most 28 rooms and files beside them, on at most 9 floors; ARCHITECTURE.md says how many there are."""
    counted = counts()
    assert counted["rooms"] + counted["files beside them"] <= MOST_ROOMS
    assert counted["floors"] <= MOST_FLOORS
    page = (ROOT / "ARCHITECTURE.md").read_text()
    for what, number in counted.items():
        assert f"{number} {what}" in page, f"ARCHITECTURE.md does not say: {number} {what}"


def test_no_module_imports_in_a_circle() -> None:
    """Not even for types only."""
    graph = grimp.build_graph("cachebus", *APPLICATION, exclude_type_checking_imports=False)
    below: dict[str, set[str]] = defaultdict(set)
    for module in graph.modules:
        below[module] = {name for name in graph.find_modules_directly_imported_by(module) if name != module}
    assert circles(below) == []


def circles(below: dict[str, set[str]]) -> list[list[str]]:
    """Return the groups of modules each of which can reach the others. Source: Tarjan 1972."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(module: str) -> None:
        index[module] = low[module] = len(index)
        stack.append(module)
        for other in below[module]:
            if other not in index:
                visit(other)
                low[module] = min(low[module], low[other])
            elif other in stack:
                low[module] = min(low[module], index[other])
        if low[module] == index[module]:
            at = stack.index(module)
            group, stack[at:] = stack[at:], []
            if len(group) > 1:
                found.append(sorted(group))

    for module in list(below):
        if module not in index:
            visit(module)
    return found


def test_files_and_classes_are_of_a_size_one_can_read() -> None:
    """No file has more than 400 lines, no class more than 300."""
    long_files = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in sources()}
    assert {name: lines for name, lines in long_files.items() if lines > LONGEST_FILE} == {}
    long_classes = {
        f"{path.relative_to(ROOT)}: {node.name}": (node.end_lineno or 0) - node.lineno + 1 for path, node in classes()
    }
    assert {name: lines for name, lines in long_classes.items() if lines > LONGEST_CLASS} == {}


def test_no_constructor_asks_for_too_much() -> None:
    """At most 8 parameters beside self: more than that is an object that is missing."""
    found = {}
    for path, node in classes():
        for method in node.body:
            if isinstance(method, ast.FunctionDef) and method.name == "__init__":
                given = [*method.args.posonlyargs, *method.args.args, *method.args.kwonlyargs]
                if len(given) - 1 > MOST_PARAMETERS:
                    found[f"{path.relative_to(ROOT)}: {node.name}"] = len(given) - 1
    assert found == {}


def test_a_name_is_one_thing() -> None:
    """No public class name occurs twice in the library, the sync facade aside: it has the names of what it fronts."""
    places = defaultdict(list)
    for path, node in classes():
        if path.is_relative_to(LIBRARY) and not path.is_relative_to(LIBRARY / "sync") and not node.name.startswith("_"):
            places[node.name].append(str(path.relative_to(ROOT)))
    assert {name: where for name, where in places.items() if len(where) > 1} == {}
