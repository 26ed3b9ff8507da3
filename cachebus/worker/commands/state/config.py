"""`config`: every setting, its value, where it comes from, what it means. Secrets masked."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from importlib import import_module

from cachebus.cache.upkeep.reporter import ENVIRONMENT_NAMES, RELEASE_NAMES, first_of
from cachebus.environment import variables
from cachebus.worker.commands.output import write_json, write_table
from cachebus.worker.settings import SECTIONS, WorkerSettings


def main(asked: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Print the table. Needs no Redis."""
    settings = WorkerSettings.from_environment(environment)
    rows = [*_deployment(environment), *_rows(settings)]
    if asked.json:
        write_json([dict(zip(("name", "value", "source", "meaning"), row, strict=True)) for row in rows])
    else:
        write_table(("SETTING", "VALUE", "SOURCE", "MEANING"), rows, "")
    for warning in settings.unknown:
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


def _rows(settings: WorkerSettings) -> Iterator[tuple[str, str, str, str]]:
    """Yield variable, value, source, meaning."""
    mask = settings.masking()
    for variable in variables(*SECTIONS):
        value, source = _value(settings, variable.name, variable.default)
        yield variable.name, mask(value), source, variable.meaning


def _value(settings: WorkerSettings, variable: str, default: str) -> tuple[str, str]:
    """Return what was written, with its secrets, and where."""
    written = settings.written.get(variable)
    if written is None:
        return default or "-", "default"
    if variable == "REDIS_URL" and "REDIS_PRIVATE_URL" in settings.written:
        return written, "environment, not used: REDIS_PRIVATE_URL is"
    return written, "environment"
