"""SIGTERM and SIGINT become one event. The first begins the drain; further ones change nothing."""

from __future__ import annotations

import asyncio
import faulthandler
import signal
import sys
import time
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)
GRACE_S = 3.0
"""Beyond the drain budget; then something holds the process against its will."""


class Stop:
    """Whether this process was told to stop.

    Handlers of the process, not of the loop: a loop that closes would put the deadly default back, and a late second
    signal would turn a clean exit into a kill.
    """

    def __init__(self, drain_s: float) -> None:
        self._limit_s = drain_s + GRACE_S
        self._loop: asyncio.AbstractEventLoop | None = None
        self.event = asyncio.Event()
        self.signal: str = ""
        """The name of the first signal, '' before it."""
        self.at = 0.0
        """When it came, seconds of `time.monotonic`."""

    def install(self) -> None:
        """Listen from now on. Main thread only."""
        for number in SIGNALS:
            signal.signal(number, self._received)

    def bind(self, loop: asyncio.AbstractEventLoop) -> None:
        """Let *loop* hear of it; at once, if it has happened already."""
        self._loop = loop
        if self.signal:
            self.event.set()

    def finished(self) -> None:
        """The drain is over: from here to the end of the process nothing may change the exit code."""
        faulthandler.cancel_dump_traceback_later()
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)

    def _received(self, number: int, _frame: FrameType | None) -> None:
        if self.signal:
            return
        self.signal, self.at = signal.Signals(number).name, time.monotonic()
        # A thread of C code: it ends a process whose loop is blocked, says where, and exits with code 1.
        faulthandler.dump_traceback_later(self._limit_s, exit=True, file=sys.__stderr__)  # type: ignore[arg-type]  # typeshed says TextIO only
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self.event.set)
