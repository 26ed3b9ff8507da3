"""Mutation testing of what decides: `python -m tests.mutants [rule|dispatch|limits …] [--at LINE …]`.

Each function of these modules is changed in each small way that `changes.py` knows, one at a time, and the quick tests
of the module run until one fails. Prints the changes that none of them noticed, and how many there were; ends with 1
where it found one that `equal.py` does not explain.
Tests are collected once. Each change is tried in a child of this process, which swaps the code of one function.
"""

from __future__ import annotations

import argparse
import inspect
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from types import CodeType, FunctionType
from typing import NamedTuple

import pytest
from _pytest.main import pytest_runtestloop

from tests.mutants.changes import Change, changes
from tests.mutants.equal import EQUAL

ROOT = Path(__file__).parents[2]
SIDE_BY_SIDE = 2
TOO_LONG = 10.0
"""So many times as long as the tests take without a change, and the change is one that makes something hang."""


class Subject(NamedTuple):
    """What is changed, and who should notice: the quickest first."""

    modules: tuple[str, ...]
    tests: tuple[str, ...]


SUBJECTS = {
    "rule": Subject(
        ("cachebus/freshness/rule.py",),
        ("tests/freshness/test_borders.py", "tests/freshness/test_table.py", "tests/model/test_rule.py"),
    ),
    "dispatch": Subject(
        ("cachebus/bus/engine/dispatcher.py", "cachebus/bus/engine/runs.py"),
        tuple(
            f"tests/bus/test_{name}.py"
            for name in (
                *("dispatcher", "handlers", "without_a_server", "middleware", "debounce", "signatures", "consumer"),
            )
        ),
    ),
    "limits": Subject(
        tuple(
            f"cachebus/limits/{name}.py" for name in ("rules", "local_counters", "seen", "limiter", "server_backend")
        ),
        tuple(f"tests/limits/test_{name}.py" for name in ("refusals", "limits_local", "limits_outage", "limits")),
    ),
}


class Survivors:
    """A pytest plugin that runs the collected tests once for each change, and notes which ones nobody noticed."""

    def __init__(self, modules: Sequence[str], lines: Sequence[int] | None) -> None:
        self._changes = [
            (module, change)
            for module in modules
            for change in changes((ROOT / module).read_text(encoding="utf-8"), module)
            if lines is None or change.line in lines
        ]
        self.left: list[tuple[str, Change]] = []
        self.tried = len(self._changes)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Try every change, in children."""
        began = time.monotonic()
        if not self._passes(session, None):
            raise pytest.UsageError("the tests fail without a change")
        self._longest_s = TOO_LONG * (time.monotonic() - began) + 20
        waiting, running = list(reversed(self._changes)), {}
        while waiting or running:
            while waiting and len(running) < SIDE_BY_SIDE:
                module, change = waiting.pop()
                running[self._started(session, module, change)] = (module, change, time.monotonic())
            for pid, (module, change, begun) in list(running.items()):
                ended, status = os.waitpid(pid, os.WNOHANG)
                if ended or time.monotonic() - begun > self._longest_s:
                    del running[pid]
                    if ended and status == 0:
                        self.left.append((module, change))
                        print(f"{module}:{change.line} {change.function}: {change.what}", file=sys.stderr, flush=True)
                    elif not ended:
                        os.killpg(pid, signal.SIGKILL)
                        os.waitpid(pid, 0)
            time.sleep(0.01)
        return True

    def _passes(self, session: pytest.Session, change: tuple[str, Change] | None) -> bool:
        pid = self._started(session, *(change or ("", None)))
        return os.waitpid(pid, 0)[1] == 0

    def _started(self, session: pytest.Session, module: str, change: Change | None) -> int:
        """Run the tests in a child, which ends with 0 where all of them pass."""
        pid = os.fork()
        if pid:
            return pid
        os.setsid()
        code = 1
        try:
            session.config.pluginmanager.unregister(name="terminalreporter")
            if change is not None:
                function_of(module, change.function).__code__ = change.code
            pytest_runtestloop(session)
            code = int(session.testsfailed > 0)
        finally:
            os._exit(code)


def function_of(module: str, name: str) -> FunctionType:
    """Return a function or method of a module."""
    found = import_module(module.removesuffix(".py").replace("/", "."))
    *owner, last = name.split(".")
    place = vars(vars(found)[owner[0]]) if owner else vars(found)
    member = place[last]
    member = member.fget if isinstance(member, property) else inspect.unwrap(getattr(member, "__func__", member))
    assert isinstance(member.__code__, CodeType)
    return member


def main() -> int:
    """Try, print, and say by the exit code whether a change was noticed by nobody."""
    parser = argparse.ArgumentParser(prog="tests.mutants", description=__doc__)
    parser.add_argument("only", nargs="*", choices=[*SUBJECTS, []], help="these alone")
    parser.add_argument("--at", type=int, nargs="+", help="changes of these lines alone")
    given = parser.parse_args()
    unexpected = 0
    for name in given.only or SUBJECTS:
        subject = SUBJECTS[name]
        survivors, began = Survivors(subject.modules, given.at), time.monotonic()
        options = ["-x", "-q", "-p", "no:randomly", "-p", "no:cacheprovider", "-n0"]
        ended = pytest.main([*options, *subject.tests], plugins=[survivors])
        if ended not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
            return 2
        explained = Counter((module, change.function, change.what) in EQUAL for module, change in survivors.left)
        print(
            f"{name}: {survivors.tried} changes, {survivors.tried - len(survivors.left)} noticed, "
            f"{explained[True]} explained, {explained[False]} noticed by nobody; {time.monotonic() - began:.0f} s"
        )
        unexpected += explained[False]
    return int(unexpected > 0)


if __name__ == "__main__":
    sys.exit(main())
