"""Ends a process whose event loop is blocked for good: a handler that never returns must not hold up the stream.

A thread does it, since the loop cannot. The event is marked before, so that it counts against the event; the process
that the platform starts instead finds the mark (`takeover.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any, Self

EXIT_CODE = 70
"""EX_SOFTWARE of sysexits.h: a platform restarts the process, and a person can tell it from a failed start."""


class Watchdog:
    """Watches the running event loop for as long as the block lasts.

    *blame* is called in the watching thread with the task that blocks the loop (None: not known); it notes whom it
    wants to blame, and returns words for the last line that this process writes.
    """

    def __init__(self, limit_s: float, blame: Callable[[asyncio.Task[Any] | None], str]) -> None:
        self._limit_s = limit_s
        self._blame = blame
        self._answered = threading.Event()
        self._over = threading.Event()

    def __enter__(self) -> Self:
        watched = asyncio.get_running_loop(), threading.get_ident()
        self._over.clear()
        self._answered.set()
        threading.Thread(target=self._watch, args=watched, name="cachebus watchdog", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()

    def _watch(self, loop: asyncio.AbstractEventLoop, thread: int) -> None:
        """Ask the loop for a sign of life, again and again. Counts own turns: a process that was paused is not late."""
        turn_s = min(1.0, self._limit_s / 4)
        silent_s = 0.0
        while not self._over.is_set():
            with contextlib.suppress(MemoryError):  # it watches on
                self._over.wait(turn_s)
                silent_s += turn_s
                if self._answered.is_set():
                    self._answered.clear()
                    silent_s = 0.0
                    try:
                        loop.call_soon_threadsafe(self._answered.set)
                    except RuntimeError:  # closed
                        return
                elif silent_s >= self._limit_s and not self._over.is_set():
                    self._end(loop, thread, silent_s)

    def _end(self, loop: asyncio.AbstractEventLoop, thread: int, silent_s: float) -> None:
        """Say where the loop hangs, and end this process. Logging is not used: the loop may hang in it."""
        try:
            frame = sys._current_frames().get(thread)  # noqa: SLF001 - the documented way to another thread's stack
            stack = "".join(traceback.format_stack(frame)) if frame is not None else ""
            try:
                whom = self._blame(asyncio.current_task(loop))
            except Exception as failed:  # noqa: BLE001 - the process ends, whatever can be found out about it
                whom = f"it is not known by whom ({failed!r})"
            line = (
                f"cachebus: the event loop is blocked for {silent_s:.0f} s: {whom}; this process ends with {EXIT_CODE}"
            )
            os.write(2, f"{line}\n{stack}{line}\n".encode(errors="replace"))
        finally:
            os._exit(EXIT_CODE)
