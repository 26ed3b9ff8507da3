"""`config`: every setting, its value, where it comes from, what it means. Secrets masked."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module

from cachebus.cache.upkeep.reporter import ENVIRONMENT_NAMES, RELEASE_NAMES, first_of
from cachebus.environment import Variable, misspelt, read, variables
from cachebus.errors import CannotStart
from cachebus.process.masking import Masking
from cachebus.worker.commands.output import write_json, write_table
from cachebus.worker.settings import WorkerSettings, every_section


def main(asked: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Print the table. Needs no Redis."""
    settings = WorkerSettings.from_environment(environment)
    sections, problems = every_section(), list[str]()
    for section in sections:
        read(section, environment, problems)
    if problems:
        raise CannotStart(problems)
    known = [*variables(*sections)]
    rows = [*_deployment(environment), *_rows(known, environment, settings.masking())]
    if asked.json:
        write_json([dict(zip(("name", "value", "source", "meaning"), row, strict=True)) for row in rows])
    else:
        write_table(("SETTING", "VALUE", "SOURCE", "MEANING"), rows, "")
    for warning in misspelt(environment, [each.name for each in known]):
        sys.stderr.write(f"warning: {warning}\n")
    return 0


def _deployment(environment: Mapping[str, str]) -> Iterator[tuple[str, str, str, str]]:
    """Yield what tells this deployment from others, and one release of it from the next."""
    for names, meaning in (
        (ENVIRONMENT_NAMES, "Name of this environment, such as production; shown on the live page"),
        (RELEASE_NAMES, "What is deployed here; a mark on the live page, a field of each log line"),
    ):
        name, value = first_of(names, environment)
        source = "default" if not name else "environment" if name == names[0] else f"environment, {name}"
        yield names[0], value or "-", source, meaning
    yield "(version)", import_module("cachebus").__version__, "installed", "Version of this library"


def _rows(
    known: Iterable[Variable], environment: Mapping[str, str], mask: Masking
) -> Iterator[tuple[str, str, str, str]]:
    """Yield variable, value, source, meaning."""
    for variable in known:
        value, source = _value(environment, variable.name, variable.default)
        yield variable.name, mask(value), source, variable.meaning


def _value(environment: Mapping[str, str], variable: str, default: str) -> tuple[str, str]:
    """Return what was written, with its secrets, and where."""
    written = environment.get(variable, "")
    if not written.strip():
        return default or "-", "default"
    if variable == "REDIS_URL" and environment.get("REDIS_PRIVATE_URL", "").strip():
        return written, "environment, not used: REDIS_PRIVATE_URL is"
    return written, "environment"
