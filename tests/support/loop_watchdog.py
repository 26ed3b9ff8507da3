"""A pytest plugin that finds what stops the event loop: `pytest -p tests.support.loop_watchdog [--stop-ms 5] tests/…`.

It counts the processor time of each callback, without that of the garbage collector, and says where the code was:
a machine that is busy with others stops a process, too.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

LIBRARY = str(Path(__file__).parents[2] / "cachebus")
LOOK_EVERY_S = 0.001


class Watchdog:
    """The callback that runs now, and the stops that were seen."""

    def __init__(self, longest_ms: float) -> None:
        self.longest_ms = longest_ms
        self.stops: Counter[str] = Counter()
        self.worst: dict[str, float] = {}
        self._began: dict[int, float] = {}
        """When the running callback of each thread began."""
        self._where: dict[int, Counter[str]] = {}
        self._collecting = 0.0
        self._collected = 0.0

    def install(self) -> None:
        """Time each callback of every loop from now on."""
        run = asyncio.Handle._run

        def timed(handle: asyncio.Handle) -> None:
            thread, began, collected = threading.get_ident(), time.thread_time(), self._collected
            self._began[thread] = time.monotonic()
            try:
                run(handle)
            finally:
                del self._began[thread]
                seen = self._where.pop(thread, None)
                took_ms = (time.thread_time() - began - (self._collected - collected)) * 1000
                if took_ms > self.longest_ms:
                    place = seen.most_common(1)[0][0] if seen else f"? {handle!r}"
                    self.stops[place] += 1
                    self.worst[place] = max(took_ms, self.worst.get(place, 0.0))

        asyncio.Handle._run = timed  # type: ignore[method-assign]
        gc.callbacks.append(self._collects)
        threading.Thread(target=self._look, daemon=True).start()

    def _collects(self, phase: str, _info: dict[str, Any]) -> None:
        if phase == "start":
            self._collecting = time.thread_time()
        else:
            self._collected += time.thread_time() - self._collecting

    def _look(self) -> None:
        while True:
            time.sleep(LOOK_EVERY_S)
            now = time.monotonic()
            for thread, began in list(self._began.items()):
                if now - began > LOOK_EVERY_S:
                    frame = sys._current_frames().get(thread)
                    if frame is not None:
                        self._where.setdefault(thread, Counter())[place(frame)] += 1


def place(frame: FrameType | None) -> str:
    """Return the innermost lines of the stack down to the library's, and that one."""
    inner: list[str] = []
    while frame is not None:
        code = frame.f_code
        inner.append(f"{code.co_filename}:{frame.f_lineno} {code.co_qualname}")
        if code.co_filename.startswith(LIBRARY):
            return " < ".join((inner[0], inner[-1]) if len(inner) > 1 else inner)
        if "/tests/" in code.co_filename:
            return f"(test) {inner[0]}"
        frame = frame.f_back
    return f"(else) {inner[0] if inner else ''}"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option."""
    parser.addoption("--stop-ms", type=float, default=5.0, help="processor time of a callback that is too much")


def pytest_configure(config: pytest.Config) -> None:
    """Begin to watch."""
    config.stash[_KEY] = watchdog = Watchdog(config.getoption("--stop-ms"))
    watchdog.install()


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Say what was seen, the library's first."""
    watchdog = config.stash[_KEY]
    terminalreporter.section("stops of the event loop")
    for name, worst in sorted(watchdog.worst.items(), key=lambda item: (item[0].startswith("("), -item[1])):
        terminalreporter.write_line(f"{watchdog.stops[name]:5} x, worst {worst:7.1f} ms  {name}")


_KEY = pytest.StashKey[Watchdog]()
