"""The application's own check: whether what it needs beside Redis answers, such as its database."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import structlog

log = structlog.get_logger("worker")

Check = Callable[[], Coroutine[Any, Any, object]]
"""Returns when all is well, raises when it is not. What `READY_CHECK` names."""

LOOK_S = 5.0
PATIENCE_S = 5.0
"""A check that takes longer counts as failed."""
LEAVE_S = 1.0
"""How long a stop waits for a check under way: a driver cancelled while it connects leaves the connection open."""


class Readiness:
    """Asks every few seconds. A worker whose check fails works on, as far as it can, and is not ready."""

    def __init__(self, check: Check) -> None:
        self._check = check
        self.problem = "not checked yet"
        """Why the application is not ready, '' when it is."""

    async def run(self) -> None:
        """Ask until cancelled; a change is logged once."""
        while True:
            problem = await ask(self._check)
            if problem and problem != self.problem:
                log.warning("application not ready", reason=problem)
            elif not problem and self.problem:
                log.info("application ready")
            self.problem = problem
            await asyncio.sleep(LOOK_S)


async def ask(check: Check) -> str:
    """Return what is wrong, '' where nothing is. Raises nothing of the check's."""
    asked = asyncio.create_task(check())
    asked.add_done_callback(lambda task: task.cancelled() or task.exception())  # nobody may be left to hear of it
    try:
        done, _ = await asyncio.wait({asked}, timeout=PATIENCE_S)
    except asyncio.CancelledError:
        await asyncio.wait({asked}, timeout=LEAVE_S)
        raise
    finally:
        asked.cancel()
    if not done:
        return f"no answer within {PATIENCE_S:g} s"
    error = asked.exception()
    return "" if error is None else f"{type(error).__name__}: {error}".splitlines()[0]
