"""Loads the application by name: its handlers, its jobs, its cache. Every problem at once, nothing half loaded."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pkgutil import walk_packages
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from cachebus import Cache
from cachebus.handlers import Handler
from cachebus.schedules import Job
from worker.literals import unmatched
from worker.settings import ApplicationSettings, CannotStart

if TYPE_CHECKING:
    from cachebus.outbox import Outbox


@dataclass(frozen=True, slots=True)
class Application:
    """What the packages declare."""

    handlers: list[Handler[Any, Any]]
    jobs: list[Job]
    cache: Cache
    warnings: list[str]
    """What is probably a mistake, and does not keep the worker from starting."""
    outbox: Outbox | None = None


def load(settings: ApplicationSettings) -> Application:
    """Import everything that the settings name. Raises: CannotStart that lists every problem."""
    problems: list[str] = []
    handlers = scan("HANDLERS", settings.handlers, Handler, problems)
    jobs = scan("SCHEDULES", settings.schedules, Job, problems)
    cache = find_cache("CACHE", settings.cache, problems)
    outbox = find_outbox("OUTBOX", settings.outbox, problems) if settings.outbox is not None else None
    if problems or cache is None:
        raise CannotStart(problems)
    warnings = unmatched((handler.function for handler in handlers), cache.views.values())
    return Application(handlers, jobs, cache, list(warnings), outbox)


class Named(Protocol):
    """What a package declares."""

    @property
    def name(self) -> str:
        """Tells it from the others."""
        ...


Declared = TypeVar("Declared", bound=Named)
Found = TypeVar("Found")


def scan(variable: str, packages: tuple[str, ...], kind: type[Declared], problems: list[str]) -> list[Declared]:
    """Return everything of *kind* that stands at the top of the modules of *packages*, in the order of their names.

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


def find_cache(variable: str, where: tuple[str, str], problems: list[str]) -> Cache | None:
    """Return the cache that *where* names; what is wrong with it is added to *problems*."""
    return _find(variable, where, Cache, problems)


def find_outbox(variable: str, where: tuple[str, str], problems: list[str]) -> Outbox | None:
    """Return the outbox that *where* names; what is wrong with it is added to *problems*."""
    try:
        from cachebus.outbox import Outbox  # noqa: PLC0415 - a worker without one does without SQLAlchemy
    except ImportError as missing:
        problems.append(f"{variable}: {missing}; install cachebus[sqlalchemy]")
        return None
    return _find(variable, where, Outbox, problems)


def _find(variable: str, where: tuple[str, str], kind: type[Found], problems: list[str]) -> Found | None:
    name, attribute = where
    module = _import(variable, name, problems)
    if module is None:
        return None
    found = getattr(module, attribute, None)
    if not isinstance(found, kind):
        article = "an" if kind.__name__.startswith("O") else "a"
        problems.append(f"{variable}: {attribute!r} in {name} is {type(found).__name__}, not {article} {kind.__name__}")
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


def _import(variable: str, name: str, problems: list[str]) -> ModuleType | None:
    try:
        return import_module(name)
    except Exception as failed:  # noqa: BLE001 - whatever a module raises, the others are looked at too
        if isinstance(failed, ModuleNotFoundError) and f"{name}.".startswith(f"{failed.name}."):
            problems.append(f"{variable}: there is no package {name!r}; start the worker where it can be imported")
        else:
            at = traceback.extract_tb(failed.__traceback__)[-1]
            why = f"{type(failed).__name__}: {failed} ({at.filename}:{at.lineno})"
            problems.append(f"{variable}: {name} cannot be imported: {why}")
        return None
