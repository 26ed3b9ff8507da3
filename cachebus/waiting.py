"""Waits that end: a deadline that does not count this process's own lateness, and tasks that are ended for certain.

And what ends a wait from outside.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from collections.abc import Iterable
from typing import Any

log = logging.getLogger("cachebus")

STEP_S = 0.1
"""A wait is cut into steps this long; what a step takes longer is the event loop's lateness, and is not counted."""
END_S = 5.0
"""How long a cancelled task may take to end before `close()` goes on without it."""


async def done_within(future: asyncio.Future[Any], timeout_s: float) -> bool:
    """Wait until *future* is done; False when that takes longer than *timeout_s*. Does not cancel it.

    Only time in which this event loop was at work counts: a process that was busy, stopped or short of CPU for ten
    seconds has not waited ten seconds for anybody.
    """
    now = asyncio.get_running_loop().time
    left_s = timeout_s
    while left_s > 0 and not future.done():
        step_s, began = min(left_s, STEP_S), now()
        await asyncio.wait([future], timeout=step_s)
        left_s -= min(step_s, now() - began)
    return future.done()


async def end(tasks: Iterable[asyncio.Future[Any]], *, within_s: float = END_S) -> None:
    """Cancel *tasks* and wait until they have ended. What has not *within_s* is named in a warning and left behind."""
    ending = set(tasks)
    for task in ending:
        task.cancel()
    if not ending:
        return
    done, left = await asyncio.wait(ending, timeout=within_s)
    for task in done:
        if not task.cancelled():
            task.exception()  # looked at: nobody needs to be warned that it never was
    if left:
        names = ", ".join(sorted(task.get_name() if isinstance(task, asyncio.Task) else repr(task) for task in left))
        log.warning("close: did not end within %g s and was left behind: %s", within_s, names)


def pass_on(error: BaseException, *kinds: type[BaseException]) -> None:
    """Raise *error*, just caught around code of the application, again where it is no failure of that code.

    Such are those of *kinds*, a Ctrl-C that this process leaves to Python, which raises it in whatever runs at that
    moment, and what is thrown into a coroutine that is closed. All else the code has raised itself, whatever its class.
    """
    if isinstance(error, kinds):
        raise error
    if isinstance(error, GeneratorExit) and (error.__traceback__ is None or error.__traceback__.tb_next is None):
        raise error  # nobody raised it further in
    # Who listens to SIGINT, as the worker and `asyncio.run` do, ends its task by other means.
    is_left_to_python = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if isinstance(error, KeyboardInterrupt) and is_left_to_python and _is_main():
        raise error


def is_cancelled() -> bool:
    """Return whether somebody asked this task to end. Code of the application may raise CancelledError by itself."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _is_main() -> bool:
    return threading.current_thread() is threading.main_thread()
