"""Hears of SIGTERM and SIGINT before whoever else handles them, in a process that belongs to somebody else.

An ASGI server waits for open connections first, and tells the application that it stops afterwards: a stream that waits
for that keeps the process alive for ever.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from collections.abc import Callable
from types import FrameType

from cachebus.process.signals import SIGNALS


class ChainedSignals:
    """Has the running loop call *asked* at each signal, then calls the handler that was there before.

    Only in the main thread, and only before a handler of somebody's: the defaults of Python and of the operating
    system end the process by themselves.
    """

    def __init__(self, asked: Callable[[], None]) -> None:
        self._asked = asked
        self._links: list[_Link] = []

    def install(self) -> None:
        """Hear of signals from now on. Another loop's or another's handlers before ours go on to work."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in SIGNALS:
            before = signal.getsignal(number)
            if callable(before) and before is not signal.default_int_handler:
                self._links.append(_Link(number, before, self._asked))

    def remove(self) -> None:
        """Put back what was there before. Idempotent."""
        while self._links:
            self._links.pop().remove()


class _Link:
    """The handler of one signal."""

    def __init__(
        self, number: signal.Signals, before: Callable[[int, FrameType | None], object], asked: Callable[[], None]
    ) -> None:
        self._number = number
        self._before = before
        self._asked: Callable[[], None] | None = asked
        self._loop = asyncio.get_running_loop()
        # A handler of the loop (add_signal_handler) is told as before: by the loop's wake-up descriptor, which stays.
        self._handler = self._received
        signal.signal(number, self._handler)

    def remove(self) -> None:
        self._asked = None  # somebody may have chained ours meanwhile: it then only passes on
        if signal.getsignal(self._number) is self._handler:
            signal.signal(self._number, self._before)

    def _received(self, number: int, frame: FrameType | None) -> None:
        if self._asked is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nothing of it is open
                self._loop.call_soon_threadsafe(self._asked)
        self._before(number, frame)
