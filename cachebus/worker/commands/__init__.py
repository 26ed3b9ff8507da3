"""What `cachebus` can do, one module a command. Each has `main(asked, environment) -> exit code`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Mapping
from importlib import import_module

from cachebus.errors import CannotStart, ConfigurationError, ServerError
from cachebus.process.masking import mask_urls

EXTRAS = {"prometheus_client": "worker", "websockets": "gateway", "sqlalchemy": "sqlalchemy"}
"""The extra that brings a package; logs and web server are in that of the command."""


def perform(module: str, asked: argparse.Namespace, environment: Mapping[str, str], *, starts: bool) -> int:
    """Run the command that was asked for; returns the exit code. *starts*: it is a program that stays."""
    try:
        code: int = import_module(module).main(asked, environment)
        sys.stdout.flush()
    except ConfigurationError as refused:
        problems = refused.problems if isinstance(refused, CannotStart) else (str(refused),)
        sys.stderr.write(explain(problems, asked.parser.prog, starts=starts))
        return 2
    except ModuleNotFoundError as missing:
        problem = missing_extra(missing, "gateway" if asked.command == "gateway" else "worker")
        sys.stderr.write(explain((problem,), asked.parser.prog, starts=starts))
        return 2
    except ServerError as unavailable:
        sys.stderr.write(f"redis unavailable: {mask_urls(str(unavailable))}\n")
        return 1
    except KeyboardInterrupt:
        return 130  # 128 + SIGINT, as a shell expects of a tool that was interrupted
    except BrokenPipeError:  # `… | head`: the reader has what it wanted
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return code


def missing_extra(missing: ModuleNotFoundError, extra: str) -> str:
    """Return which package is not installed, and the command that installs it."""
    package = (missing.name or "").partition(".")[0]
    return f"{package} is not installed: pip install 'cachebus[{EXTRAS.get(package, extra)}]'"


def explain(problems: Iterable[str], prog: str, *, starts: bool) -> str:
    """Return every problem, one a line, with its fix. *starts*: of a program that would have started."""
    problems = tuple(problems)
    if not starts:
        return "".join(f"{prog}: {mask_urls(problem)}\n" for problem in problems)
    head = f"cannot start: {len(problems)} problem{'s' if len(problems) > 1 else ''}, nothing was started\n"
    return head + "".join(f"  {mask_urls(problem)}\n" for problem in problems)
