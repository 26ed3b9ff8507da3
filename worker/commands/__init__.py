"""What `python -m worker` can do, one module a command. Each has `main(asked, settings) -> exit code`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from importlib import import_module

from worker.masking import mask_urls
from worker.settings import CannotStart, Settings


def perform(asked: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Read the settings and run the command that was asked for; returns the exit code."""
    try:
        settings = Settings.from_environment(environment)
        code: int = import_module(f"worker.commands.{asked.command}").main(asked, settings)
    except CannotStart as refused:
        sys.stderr.write(explain(refused))
        return 2
    return code


def explain(refused: CannotStart) -> str:
    """Return every problem, one a line, with its fix."""
    count = len(refused.problems)
    head = f"cannot start: {count} problem{'s' if count > 1 else ''}, nothing was started\n"
    return head + "".join(f"  {mask_urls(problem)}\n" for problem in refused.problems)
