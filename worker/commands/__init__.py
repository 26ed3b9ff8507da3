"""What `python -m worker` can do, one module a command. Each has `main(asked, settings) -> exit code`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from importlib import import_module

from cachebus import ConfigurationError, ServerError
from worker.masking import mask_urls
from worker.settings import CannotStart, Settings


def perform(asked: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Read the settings and run the command that was asked for; returns the exit code."""
    try:
        settings = Settings.from_environment(environment)
        code: int = import_module(f"worker.commands.{asked.command}").main(asked, settings)
        sys.stdout.flush()
    except CannotStart as refused:
        sys.stderr.write(explain(refused.problems))
        return 2
    except ConfigurationError as refused:
        sys.stderr.write(explain((str(refused),)))
        return 2
    except ServerError as away:
        sys.stderr.write(f"redis does not answer: {mask_urls(str(away))}\n")
        return 1
    except KeyboardInterrupt:
        return 130  # 128 + SIGINT, as a shell expects of a tool that was interrupted
    except BrokenPipeError:  # `… | head`: the reader has what it wanted
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return code


def explain(problems: tuple[str, ...]) -> str:
    """Return every problem, one a line, with its fix."""
    head = f"cannot start: {len(problems)} problem{'s' if len(problems) > 1 else ''}, nothing was started\n"
    return head + "".join(f"  {mask_urls(problem)}\n" for problem in problems)
