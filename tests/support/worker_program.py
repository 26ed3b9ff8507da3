"""Real worker processes for tests: started, listened to, signalled, always ended."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ROOT = Path(__file__).parents[2]
APPS = ROOT / "tests/support/apps"
"""Applications as their users write them; each is found by its name."""
WORKER = (sys.executable, "-m", "worker")
DEADLINE_S = 30.0
"""Generous: a busy machine is slow, and nothing waits this long when all is well."""


def until(true: Callable[[], Any], what: str | Callable[[], str]) -> Any:
    """Wait for something that another process does; returns what the predicate returned."""
    deadline = time.monotonic() + DEADLINE_S
    while not (value := true()):
        assert time.monotonic() < deadline, f"waited {DEADLINE_S:.0f} s for {what() if callable(what) else what}"
        time.sleep(0.01)
    return value


class WorkerProcess:
    """`python -m worker`, as the Procfile says it, or one of its commands. `lines` is what it has said so far."""

    def __init__(
        self, environment: Mapping[str, str], *arguments: str, cwd: Path = ROOT, program: Sequence[str | Path] = WORKER
    ) -> None:
        self._cwd = cwd
        self._program = program
        self.environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": f"{ROOT}:{APPS}",
            "PYTHONWARNINGS": "always",
            "LOG_FORMAT": "json",
            **environment,
        }
        self._arguments = arguments
        self.lines: list[dict[str, Any]] = []
        self.text = ""
        self._new: queue.Queue[None] = queue.Queue()

    def start(self) -> Self:
        """Start it; returns at once."""
        self.process = subprocess.Popen(
            [*self._program, *self._arguments],
            cwd=self._cwd,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._readers = [
            threading.Thread(target=self._read, args=(self.process.stdout,), daemon=True),
            threading.Thread(target=self._read, args=(self.process.stderr,), daemon=True),
        ]
        for reader in self._readers:
            reader.start()
        return self

    def _read(self, stream: Any) -> None:
        for line in stream:
            self.text += line
            if line.startswith("{"):
                self.lines.append(json.loads(line))

    def said(self, message: str) -> dict[str, Any]:
        """Wait until it has said *message* (or something that begins so); returns the line."""

        def found() -> dict[str, Any] | None:
            return next((line for line in self.lines if line["message"].startswith(message)), None)

        def found_or_ended() -> dict[str, Any] | None:
            if found() is None and self.process.poll() is not None:
                for reader in self._readers:
                    reader.join()
                assert found(), f"it ended with {self.process.returncode} and never said {message!r}:\n{self.text}"
            return found()

        line: dict[str, Any] = until(found_or_ended, lambda: f"{message!r}; so far:\n{self.text}")
        return line

    def shows(self, pattern: str) -> re.Match[str]:
        """Wait until its text has *pattern*; returns what matched."""

        def found_or_ended() -> re.Match[str] | None:
            ended = self.process.poll() is not None
            found = re.search(pattern, self.text)
            assert found or not ended, f"it ended with {self.process.returncode}, without {pattern!r}:\n{self.text}"
            return found

        found: re.Match[str] = until(found_or_ended, lambda: f"{pattern!r}; so far:\n{self.text}")
        return found

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def ended(self) -> int:
        """Wait until it has ended; returns the exit code."""
        code = self.process.wait(timeout=DEADLINE_S)
        for reader in self._readers:
            reader.join()
        return code

    def stop(self) -> int:
        """Ask it to end, as a platform does; returns the exit code."""
        self.signal(signal.SIGTERM)
        return self.ended()

    def kill(self) -> None:
        """End it as kill -9 does."""
        self.process.kill()
        self.ended()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)  # and whatever it has started
        self.ended()
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()
        if kind is None:
            assert "Warning: " not in self.text, f"it leaves something open, or uses something old:\n{self.text}"


def ask(
    environment: Mapping[str, str], *arguments: str, cwd: Path = ROOT, program: Sequence[str | Path] = WORKER
) -> tuple[int, str]:
    """Run one command of the worker to its end; returns its exit code and what it printed."""
    with WorkerProcess(environment, *arguments, cwd=cwd, program=program) as command:
        code = command.ended()
        return code, command.text


async def asynchronously(true: Callable[[], Any]) -> None:
    """Wait for a predicate while the event loop goes on."""
    async with asyncio.timeout(DEADLINE_S):
        while not true():  # noqa: ASYNC110 - what is waited for is in another process
            await asyncio.sleep(0.01)
