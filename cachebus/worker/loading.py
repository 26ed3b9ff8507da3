"""Loads the application by name: its handlers, its jobs, its cache. Every problem at once, nothing half loaded."""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from importlib import import_module
from inspect import iscoroutinefunction, signature
from pathlib import Path
from pkgutil import walk_packages
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from cachebus.bus.handlers import Handler
from cachebus.cache.cache import Cache
from cachebus.errors import CannotStart
from cachebus.schedules.decorators import Job
from cachebus.sync.cache import Cache as SyncCache
from cachebus.worker.settings import ApplicationSettings
from cachebus.worker.unmatched_names import unmatched

if TYPE_CHECKING:
    from cachebus.integrations.sqlalchemy.outbox import Outbox
    from cachebus.worker.health.readiness import Check

LIBRARY = f"{Path(__file__).parents[1]}{os.sep}"


@dataclass(frozen=True, slots=True)
class Application:
    """What the packages declare."""

    handlers: list[Handler[Any, Any]]
    jobs: list[Job]
    cache: Cache
    warnings: list[str]
    """What is probably a mistake, and does not keep the worker from starting."""
    outbox: Outbox | None = None
    ready_check: Check | None = None
    facade: SyncCache | None = None
    """The synchronous cache over `cache`, where the application has that."""

    def connected(self) -> AbstractAsyncContextManager[Cache]:
        """Connect its cache for as long as a block lasts, in this loop, also for what calls it from threads."""
        return self.cache if self.facade is None else self.facade.in_this_loop()


def load(settings: ApplicationSettings) -> Application:
    """Import everything that the settings name. Raises: CannotStart that lists every problem."""
    problems: list[str] = []
    handlers = scan("HANDLERS", settings.handlers, Handler, problems)
    jobs = scan("SCHEDULES", settings.schedules, Job, problems)
    found = find_cache("CACHE", settings.cache, problems)
    outbox = find_outbox("OUTBOX", settings.outbox, problems) if settings.outbox is not None else None
    check = find_check("READY_CHECK", settings.ready_check, problems) if settings.ready_check is not None else None
    if problems or found is None:
        raise CannotStart(problems)
    facade = found if isinstance(found, SyncCache) else None
    cache = found.cache if isinstance(found, SyncCache) else found
    warnings = unmatched((handler.function for handler in handlers), cache.views.values())
    if outbox is not None:
        from cachebus.integrations.sqlalchemy.row_changes import rows_changed  # noqa: PLC0415 - it needs an outbox

        handlers = [*handlers, rows_changed]
    return Application(handlers, jobs, cache, list(warnings), outbox, check, facade)


class Named(Protocol):
    """What a package declares."""

    @property
    def name(self) -> str:
        """Tells it from the others."""
        ...


Declared = TypeVar("Declared", bound=Named)


def scan(variable: str, packages: tuple[str, ...], kind: type[Declared], problems: list[str]) -> list[Declared]:
    """Return everything of *kind* that the modules of *packages* have, in the order of their names.

    Modules that cannot be imported and names that two declarations share are added to *problems*.
    """
    found: dict[int, tuple[str, Declared]] = {}
    for module in _modules(variable, packages, problems):
        for value in vars(module).values():
            if isinstance(value, kind):
                found.setdefault(id(value), (module.__name__, value))  # imported elsewhere, it is still the same one
    first: dict[str, str] = {}
    for module_name, declared in found.values():
        if declared.name in first:
            problems.append(
                f"{variable}: {declared.name!r} is declared in {first[declared.name]} and in {module_name}; rename one"
            )
        first.setdefault(declared.name, module_name)
    return [declared for _, declared in found.values()]


def find_cache(variable: str, where: tuple[str, str], problems: list[str]) -> Cache | SyncCache | None:
    """Return the cache that *where* names; what is wrong with it is added to *problems*."""
    found: Cache | SyncCache | None = _find(variable, where, (Cache, SyncCache), problems)
    return found


def find_outbox(variable: str, where: tuple[str, str], problems: list[str]) -> Outbox | None:
    """Return the outbox that *where* names; what is wrong with it is added to *problems*."""
    try:
        from cachebus.integrations.sqlalchemy.outbox import Outbox  # noqa: PLC0415 - a worker without one does without SQLAlchemy
    except ImportError as missing:
        problems.append(f"{variable}: {missing}; install cachebus[sqlalchemy]")
        return None
    found: Outbox | None = _find(variable, where, (Outbox,), problems)
    return found


def find_check(variable: str, where: tuple[str, str], problems: list[str]) -> Check | None:
    """Return the application's check; what is wrong with it is added to *problems*."""
    name, attribute = where
    module = _import(variable, name, problems)
    if module is None:
        return None
    found: Check | None = getattr(module, attribute, None)
    if not iscoroutinefunction(found) or any(
        each.default is each.empty for each in signature(found).parameters.values()
    ):
        problems.append(f"{variable}: {attribute!r} in {name} is not an async function without arguments")
        return None
    return found


def _find(variable: str, where: tuple[str, str], kinds: tuple[type[Any], ...], problems: list[str]) -> Any:
    name, attribute = where
    module = _import(variable, name, problems)
    if module is None:
        return None
    if not hasattr(module, attribute):
        problems.append(f"{variable}: there is no {attribute!r} in {name}")
        return None
    found = getattr(module, attribute)
    if not isinstance(found, kinds):
        kind = kinds[0].__name__
        article = "an" if kind.startswith("O") else "a"
        problems.append(f"{variable}: {attribute!r} in {name} is {type(found).__name__}, not {article} {kind}")
        return None
    return found


def _modules(variable: str, packages: tuple[str, ...], problems: list[str]) -> Iterator[ModuleType]:
    """Import *packages* and everything below them."""
    for name in packages:
        package = _import(variable, name, problems)
        if package is None:
            continue
        yield package
        for below in sorted(module.name for module in walk_packages(getattr(package, "__path__", ()), f"{name}.")):
            module = _import(variable, below, problems)
            if module is not None:
                yield module


def _why(failed: Exception | SystemExit) -> str:
    """Return what a module raised, and the file and line: its own, where this library refused what it says there."""
    if isinstance(failed, SyntaxError):
        return f"{type(failed).__name__}: {failed.msg} ({failed.filename}:{failed.lineno})"
    frames = traceback.extract_tb(failed.__traceback__)
    at = next((frame for frame in reversed(frames) if not frame.filename.startswith(LIBRARY)), frames[-1])
    return f"{type(failed).__name__}: {failed} ({at.filename}:{at.lineno})"


def _import(variable: str, name: str, problems: list[str]) -> ModuleType | None:
    try:
        return import_module(name)
    except (Exception, SystemExit) as failed:  # noqa: BLE001 - whatever a module raises, the others are looked at too
        if isinstance(failed, ModuleNotFoundError) and f"{name}.".startswith(f"{failed.name}."):
            problems.append(f"{variable}: there is no module {name!r} in {Path.cwd()} or among the installed packages")
        else:
            problems.append(f"{variable}: {name} cannot be imported: {_why(failed)}")
        return None
