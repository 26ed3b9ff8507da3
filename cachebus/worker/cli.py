"""`cachebus`: the command line. Does what was asked; the module of a command is imported when it is asked for.

Boot chain of `cachebus worker`: here, `settings`, `loading`, `run`, `build`, then `run` again until the drain is over.
Exit codes: 0 success, 1 failure or negative answer, 2 bad usage or settings, 70 ended by the watchdog, 130 Ctrl-C.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse
    from types import FrameType

MODULES: Mapping[str, str] = MappingProxyType(
    {
        "worker": "cachebus.worker.run",
        "gateway": "cachebus.gateway.cli",
        "dev": "cachebus.worker.commands.dev",
        "new": "cachebus.worker.commands.new",
        "completion": "cachebus.worker.commands.completion",
        "config": "cachebus.worker.commands.state.config",
        "doctor": "cachebus.worker.commands.state.doctor",
        "stats": "cachebus.worker.commands.state.stats",
        "page-link": "cachebus.worker.commands.page_link",
        "views": "cachebus.worker.commands.state.views",
        "top": "cachebus.worker.commands.state.top",
        "predict": "cachebus.worker.commands.state.predict",
        "analyze": "cachebus.worker.commands.state.analyze",
        "replay": "cachebus.worker.commands.state.replay",
        "locks": "cachebus.worker.commands.state.locks",
        "sockets": "cachebus.worker.commands.state.sockets",
        "schedule": "cachebus.worker.commands.schedule",
        "metrics": "cachebus.worker.commands.metrics",
        "pg-triggers": "cachebus.worker.commands.pg_triggers",
        "publish": "cachebus.worker.commands.publish",
        "tail": "cachebus.worker.commands.state.tail",
        "events": "cachebus.worker.commands.state.events",
        "cancel": "cachebus.worker.commands.cancel",
        "unlock": "cachebus.worker.commands.unlock",
        "letters": "cachebus.worker.commands.letters",
        "invalidate": "cachebus.worker.commands.invalidate",
        "inspect": "cachebus.worker.commands.state.inspect",
        "forget": "cachebus.worker.commands.forget",
    }
)
"""What does each command; `check` is in the module of the heartbeat, which imports next to nothing."""
PROCESSES = frozenset({"worker", "gateway", "dev"})
"""Commands that run until they are stopped."""
APPLICATION = ("cache", "handlers", "schedules", "outbox")
"""Options that stand for the variable of the same name."""


def main(
    arguments: list[str] | None = None,
    *,
    prog: str = "cachebus",
    command: str | None = None,
    defaults: Mapping[str, str] = MappingProxyType({}),
) -> int:
    """Do what was asked; returns the exit code.

    *command* is what an application's own boot page runs when none is asked for; *defaults* are the values of
    variables that the environment leaves out.
    """
    words = sys.argv[1:] if arguments is None else arguments
    if command is not None and (not words or (words[0].startswith("-") and words[0] not in {"-h", "--help"})):
        words = [command, *words]
    if arguments is None and words and words[0] in PROCESSES:
        _stop_cleanly_from_now_on()
    from cachebus.worker.usage import parser  # noqa: PLC0415 - a process listens to signals before it imports

    asked, unknown = parser(prog).parse_known_args(words)
    if unknown:
        asked.parser.refuse(unknown)
    environment = {**defaults, **os.environ, **_named(asked)}
    if asked.version:
        sys.stdout.write(f"cachebus {import_module('cachebus').__version__}\n")
        return 0
    if asked.command is None:
        asked.parser.print_help()
        return 0
    if asked.command == "check":  # a platform asks often: nothing more is imported
        from cachebus.worker.health.heartbeat import DATA_DIR, check, told  # noqa: PLC0415

        data_dir = asked.data_dir or environment.get("DATA_DIR") or DATA_DIR
        code, found = check(data_dir, ready=asked.ready)
        sys.stdout.write(told(found, data_dir, as_json=asked.json) + "\n")
        return code
    from cachebus.worker.commands import perform  # noqa: PLC0415 - everything else loads the library

    return perform(MODULES[asked.command], asked, environment, starts=asked.command in PROCESSES)


def script() -> int:
    """Run as `cachebus`: the application is imported from the current folder."""
    here = os.getcwd()  # noqa: PTH109 - pathlib is a tenth of the time until a worker listens to signals
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return main()
    except KeyboardInterrupt:  # while the library was imported
        return 130


def _named(asked: argparse.Namespace) -> dict[str, str]:
    """Return the options that name the application, as the variables they stand for."""
    given = {option.upper(): getattr(asked, option, None) for option in APPLICATION}
    return {variable: text for variable, text in given.items() if text is not None}


def _stop_cleanly_from_now_on() -> None:
    """End at once, with 0, on a signal that comes before the process has its own answer to it: nothing has begun yet.

    Imports take longer than some deploys wait before they take a process back.
    """

    def leave(number: int, _frame: FrameType | None) -> None:
        os.write(2, f"stopped by {signal.Signals(number).name} before anything was started\n".encode())
        os._exit(0)  # not SystemExit: it would rise in the middle of an import, whoever does it

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, leave)
