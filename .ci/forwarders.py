"""Write `cachebus/sync/forwarders.py`: the methods of `cachebus.sync` that only cross to the loop's thread and wait.

Run it after an asynchronous signature has changed: `make forwarders`. `make check` compares.
"""

from __future__ import annotations

import ast
import builtins
import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, get_overloads

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "cachebus/sync/forwarders.py"
sys.path.insert(0, str(ROOT))

from cachebus.bus.publisher import Bus  # noqa: E402
from cachebus.cache.atomic.values import AtomicValues  # noqa: E402
from cachebus.cache.cache import Cache  # noqa: E402 - found from the repository, wherever this is run
from cachebus.limits.limiter import RateLimiter  # noqa: E402
from cachebus.locks.locks import Locks  # noqa: E402
from cachebus.pubsub.pubsub import PubSub  # noqa: E402
from cachebus.sessions.store import SessionStore  # noqa: E402

BY_HAND: dict[type[Any], set[str]] = {
    AtomicValues: set(),
    Bus: set(),
    Cache: {"close", "get_or_load", "get_or_load_many"},
    Locks: set(),
    PubSub: {"subscribe"},
    RateLimiter: set(),
    SessionStore: set(),
}
"""What a synchronous class writes itself: it takes a function of the caller, or does more than wait."""
AT_ONCE: dict[type[Any], set[str]] = {
    Bus: {"observed_by"},
    Cache: {"loading_only", "observed_by", "reading", "stats", "view"},
}
"""Plain methods that do no I/O: called in the caller's thread."""
AWAITED = re.compile(r"Coroutine\[Any, Any, (.*)\]")
INSIDE: dict[type[Any], set[str]] = {
    Cache: {"configure", "connected", "connection"},
    Locks: {"acquire", "release_claim", "renew"},
}
"""What is for other parts of the library and not for its users."""

HEAD = '"""Methods that run in the loop thread, and wait. Written by `make forwarders`: do not edit."""'


def forwarders() -> str:
    """Return the module's text."""
    imports: dict[str, set[str]] = {}
    classes = [_class(source, imports) for source in BY_HAND]
    lines = "\n".join(f"    from {module} import {', '.join(names)}" for module, names in imports.items())
    text = f"""{HEAD}

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

from cachebus.sync.part import SyncPart

if TYPE_CHECKING:
{lines}

D = TypeVar("D")
P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


{"".join(classes)}"""
    for command in (["check", "--fix", "--select", "I"], ["format"]):
        ruff = [sys.executable, "-m", "ruff", *command, "-q", "--stdin-filename", str(TARGET), "-"]
        text = subprocess.run(ruff, input=text, capture_output=True, text=True, check=True, cwd=ROOT).stdout  # noqa: S603 - our own
    return text


def _class(source: type[Any], imports: dict[str, set[str]]) -> str:
    name = source.__name__
    imports.setdefault(source.__module__, set()).add(f"{name} as Async{name}")
    if source is Cache:
        head = f'''
class CacheForwarders(ABC):
    """The methods of `cachebus.Cache`, which describes them in full."""

    cache: Async{name}

    @abstractmethod
    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run something asynchronous in the loop thread and wait for it."""

    @abstractmethod
    def decorator(
        self, decorate: Callable[[Callable[P, Awaitable[R]]], AsyncView[P, R]]
    ) -> Callable[[Callable[P, R]], View[P, R]]:
        """Return the decorator of a plain function."""
'''
        imports["collections.abc"] = {"Awaitable", "Callable", "Coroutine"}
        imports["contextlib"] = {"AbstractContextManager"}
        imports["cachebus.cache.view"] = {"View as AsyncView"}
        imports["cachebus.sync.view"] = {"View"}
    else:
        head = f'''
class {name}Forwarders(SyncPart):
    """The methods of `cachebus.{name}`, which describes them in full."""

    part: Async{name}
'''
    left_out = BY_HAND[source] | INSIDE.get(source, set())
    methods = [
        _method(source, function, imports)
        for method, function in inspect.getmembers(source, inspect.isfunction)
        if method in AT_ONCE.get(source, ())
        or (_is_awaited(function) and not method.startswith("_") and method not in left_out)
    ]
    return head + "".join(methods) + "\n"


def _method(source: type[Any], function: Any, imports: dict[str, set[str]]) -> str:
    name = function.__name__
    forms = [_declaration(form, imports)[0] for form in get_overloads(function)]
    declaration, passed = _declaration(function, imports)
    call = f"{'self.cache' if source is Cache else 'self.part'}.{name}({', '.join(passed)})"
    if _is_awaited(function):
        call = f"self.run({call})"
    elif name == "view":
        call = f"self.decorator({call})"
    summary = (inspect.getdoc(function) or "").splitlines()[0]
    return (
        "".join(f"\n    @overload\n    {form}: ...\n" for form in forms)
        + f'''
    {declaration}:
        """{summary}"""
        {"" if declaration.endswith("-> None") else "return "}{call}
'''
    )


def _declaration(function: Any, imports: dict[str, set[str]]) -> tuple[str, list[str]]:
    """Return the `def` of a forwarder, without its colon, and the arguments that it passes on."""
    signature = inspect.signature(function)
    declared, passed, starred = ["self"], [], False
    for parameter in list(signature.parameters.values())[1:]:
        keyword = parameter.kind is parameter.KEYWORD_ONLY
        if keyword and not starred:
            declared.append("*")
        star = "*" if parameter.kind is parameter.VAR_POSITIONAL else ""
        starred = starred or keyword or bool(star)
        default = "" if parameter.default is parameter.empty else f" = {_written(parameter.default)}"
        declared.append(f"{star}{parameter.name}: {parameter.annotation}{default}")
        passed.append(f"{parameter.name}={parameter.name}" if keyword else star + parameter.name)
        _note_imports(function, parameter.annotation, imports)
    returned = signature.return_annotation.replace("Iterator[", "AbstractContextManager[")
    if not inspect.iscoroutinefunction(function):
        returned = AWAITED.sub(r"\1", returned)
    if function.__name__ == "view":
        returned = "Callable[[Callable[P, R]], View[P, R]]"
    else:
        _note_imports(function, returned, imports)
    return f"def {function.__name__}({', '.join(declared)}) -> {returned}", passed


def _is_awaited(function: Any) -> bool:
    """Whether it is `async`, or returns what its caller awaits."""
    returned = str(inspect.signature(function).return_annotation)
    return inspect.iscoroutinefunction(function) or AWAITED.fullmatch(returned) is not None


def _written(default: Any) -> str:
    """Return a default as Python text."""
    return "Any" if default is Any else repr(default)


def _note_imports(function: Any, annotation: str, imports: dict[str, set[str]]) -> None:
    """Note where the names of an annotation come from, as the module of *function* imports or defines them."""
    module = sys.modules[function.__module__]
    tree = ast.parse(inspect.getsource(module))
    origins = {
        alias.asname or alias.name: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    names = {node.id for node in ast.walk(ast.parse(annotation)) if isinstance(node, ast.Name)}
    for name in names - {"AbstractContextManager", "Any", "D", "P", "R", "T"}:
        if not hasattr(builtins, name):
            imports.setdefault(origins.get(name) or module.__name__, set()).add(name)


if __name__ == "__main__":
    TARGET.write_text(forwarders())
