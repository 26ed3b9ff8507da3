"""`run`: the worker itself."""

from __future__ import annotations

import argparse

from worker.settings import Settings


def main(asked: argparse.Namespace, settings: Settings) -> int:
    """Run until told to stop."""
    if asked.reload:
        from worker.reload import watch  # noqa: PLC0415 - development only

        return watch(settings)
    from worker.run import run  # noqa: PLC0415 - `--reload` only starts the process that needs it

    return run(settings)
