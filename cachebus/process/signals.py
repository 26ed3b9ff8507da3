"""SIGTERM and SIGINT become one event. The first begins the drain; further ones change nothing."""

from __future__ import annotations

import asyncio
import faulthandler
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from types import FrameType

import anyio

from cachebus.process.hanging import say_what_hangs

SIGNALS = (signal.SIGTERM, signal.SIGINT)
GRACE_S = 3.0
"""Beyond the drain budget; a process that is still there is blocked."""
SAID_S = 0.5
"""How long before that its loop, where it is not blocked itself, says which tasks do not end."""


class Stop:
    """Whether this process was asked to stop.

    Two listeners: a handler of the process, which needs no loop and sees a signal also while the loop is blocked, or
    before and after there is one; and the running loop's receiver, which sets `event`.
    """

    def __init__(self, drain_s: float) -> None:
        self._limit_s = drain_s + GRACE_S
        self.event = asyncio.Event()
        self.signal: str = ""
        """The name of the first signal, '' before it."""
        self.at = 0.0
        """When it came, seconds of `time.monotonic`."""

    def install(self) -> None:
        """Listen from now on. Main thread only."""
        for number in SIGNALS:
            signal.signal(number, self._received)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Have the running loop hear of a signal, also of one that came before."""
        if self.signal:
            self._heard()
        with anyio.open_signal_receiver(*SIGNALS) as received:
            self.install()  # in place of the loop's handlers, which do nothing: the receiver is woken by either
            listener = asyncio.create_task(self._listen(received))
            try:
                yield
            finally:
                listener.cancel()
                # Leaving puts the deadly defaults back: a signal at that moment must not turn a clean exit into a kill.
                signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        self.install()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)

    def finished(self) -> None:
        """The drain is over: from here to the end of the process nothing may change the exit code."""
        faulthandler.cancel_dump_traceback_later()
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)

    async def _listen(self, received: AsyncIterator[signal.Signals]) -> None:
        async for _ in received:
            self._heard()

    def _heard(self) -> None:
        if not self.event.is_set():
            self.event.set()
            self.warn_before_limit(asyncio.get_running_loop())

    def _received(self, number: int, _frame: FrameType | None) -> None:
        if self.signal:
            return
        self.signal, self.at = signal.Signals(number).name, time.monotonic()
        self.limit()

    def limit(self) -> None:
        """End this process after the drain budget and three seconds, wherever it hangs then."""
        # A thread of C code: it ends a process whose loop is blocked, says where, and exits with code 1.
        faulthandler.dump_traceback_later(self._limit_s, exit=True, file=sys.__stderr__)  # type: ignore[arg-type]  # typeshed says TextIO only

    def warn_before_limit(self, loop: asyncio.AbstractEventLoop) -> None:
        """Have *loop* say shortly before the limit what does not end, wherever it is run by then."""
        loop.call_later(self._limit_s - SAID_S, say_what_hangs)
