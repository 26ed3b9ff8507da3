"""`config`: every setting, its value, where it comes from, what it means. Secrets masked."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator

from worker.masking import mask_urls
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
    for variable, (_, default, meaning) in CACHE_VARIABLES.items():
        yield variable, *_value(settings, variable, default), meaning
    for setting in declared():
        yield setting.variable, *_value(settings, setting.variable, setting.default), setting.meaning


def _value(settings: Settings, variable: str, default: str) -> tuple[str, str]:
    written = settings.written.get(variable)
    if written is None:
        return default or "-", "default"
    if variable == "REDIS_URL" and "REDIS_PRIVATE_URL" in settings.written:
        return mask_urls(written), "environment, not used: REDIS_PRIVATE_URL is"
    return mask_urls(written), "environment"
