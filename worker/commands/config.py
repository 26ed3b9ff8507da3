"""`config`: every setting, its value, where it comes from, what it means. Secrets masked."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator

from worker.settings import CACHE_VARIABLES, Settings, declared


def main(_asked: argparse.Namespace, settings: Settings) -> int:
    """Print the table. Needs no Redis."""
    rows = list(_rows(settings))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for row in rows:
        sys.stdout.write(
            "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=False)) + f"  {row[3]}\n"
        )
    for warning in settings.unknown:
        sys.stdout.write(f"warning: {warning}\n")
    return 0


def _rows(settings: Settings) -> Iterator[tuple[str, str, str, str]]:
    """Yield variable, value, source, meaning."""
    mask = settings.masking()
    for variable, (_, default, meaning) in CACHE_VARIABLES.items():
        value, source = _value(settings, variable, default)
        yield variable, mask(value), source, meaning
    for setting in declared():
        value, source = _value(settings, setting.variable, setting.default)
        yield setting.variable, mask(value), source, setting.meaning


def _value(settings: Settings, variable: str, default: str) -> tuple[str, str]:
    """Return what was written, with its secrets, and where."""
    written = settings.written.get(variable)
    if written is None:
        return default or "-", "default"
    if variable == "REDIS_URL" and "REDIS_PRIVATE_URL" in settings.written:
        return written, "environment, not used: REDIS_PRIVATE_URL is"
    return written, "environment"
