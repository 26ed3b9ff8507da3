"""Keeps named services running: restarts what breaks, never in a hurry; drains them all when told to stop."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import structlog

from cachebus.errors import ServerError

log = structlog.get_logger("worker")

FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0
"""Often enough to be back soon after what broke it is mended, rare enough to cost nothing meanwhile."""
SETTLED_S = 2.0
"""A service that has run this long after a failure counts as running."""
STEADY_S = 60.0
"""A service that has run this long counts as sound: its next failure is a first one."""
CANCEL_S = 1.0
"""How long a service may take to end once it is cancelled."""


@dataclass(slots=True)
class Service:
    """Something that runs until it is stopped.

    `run` works until it is cancelled; returning or raising before that is a failure. `drain` stops intake and returns
    when work under way is finished or handed back; `run` is cancelled afterwards.
    """

    name: str
    run: Callable[[], Coroutine[Any, Any, None]]
    drain: Callable[[], Coroutine[Any, Any, None]] | None = None
    feeds: bool = False
    """Its drain hands work to the others: it is drained before them."""
    broken: str = field(default="", init=False)
    """Why it is not running, '' while it is."""
    restarts: int = field(default=0, init=False)

    def mended(self) -> None:
        """Note that it runs."""
        if self.broken:
            self.broken = ""
            log.info("service runs again", service=self.name, restarts=self.restarts)


def pause_s(failures: int, draw: float) -> float:
    """Return how long to wait after so many failures in a row; *draw* in [0, 1) spreads workers apart. Pure."""
    ceiling = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(failures - 1, 16))
    return ceiling * (0.5 + draw / 2)


class Supervisor:
    """Runs services side by side. One that breaks never takes another with it, nor the process."""

    def __init__(self, services: Sequence[Service], *, drain_s: float) -> None:
        self.services = services
        self._drain_s = drain_s

    @property
    def broken(self) -> dict[str, str]:
        """Services that are not running, and why."""
        return {service.name: service.broken for service in self.services if service.broken}

    async def run(self, stop: asyncio.Event) -> None:
        """Run every service until *stop* is set, then drain them. Raises nothing of theirs."""
        tasks = [asyncio.create_task(_keep(service), name=service.name) for service in self.services]
        try:
            await stop.wait()
            await self._drain()
        finally:
            for task in tasks:
                task.cancel()
            _, stubborn = await asyncio.wait(tasks, timeout=CANCEL_S) if tasks else ((), ())
            for task in stubborn:
                log.warning("service did not end when cancelled", service=task.get_name())

    async def _drain(self) -> None:
        """Stop intake, those that feed others first; within each step a slow service does not eat another's time."""
        deadline = asyncio.get_running_loop().time() + self._drain_s
        for feeds in (True, False):
            draining = {
                asyncio.create_task(service.drain()): service.name
                for service in self.services
                if service.drain is not None and service.feeds is feeds
            }
            if draining:
                await _finish(draining, deadline - asyncio.get_running_loop().time())


async def _finish(draining: Mapping[asyncio.Task[None], str], timeout_s: float) -> None:
    """Wait for drains; tell of those that fail or take too long."""
    done, late = await asyncio.wait(draining, timeout=max(0.0, timeout_s))
    for drain in done:
        if not drain.cancelled() and (error := drain.exception()):
            log.warning("drain failed", service=draining[drain], error=repr(error))
    for drain in late:
        log.warning("drain budget is used up; what is left is handed back", service=draining[drain])
        drain.cancel()


async def _keep(service: Service) -> None:
    """Run one service for ever. A failure is told once per change of its reason, not once per attempt."""
    now = asyncio.get_running_loop().time
    failures, told = 0, ""
    while True:
        started = now()
        running = asyncio.get_running_loop().call_later(SETTLED_S, service.mended)
        try:
            await service.run()
            reason, error = "it ended by itself", None
        except Exception as failed:  # noqa: BLE001 - whatever a service raises, the others go on
            reason, error = f"{type(failed).__name__}: {failed}", failed
        finally:
            running.cancel()
        if now() - started > STEADY_S:
            failures, told = 0, ""
        failures += 1
        service.broken = reason
        if reason != told:
            told = reason
            log.error(
                "service broke; it is started again", service=service.name, error=reason, exc_info=_traceback(error)
            )
        await asyncio.sleep(pause_s(failures, random.random()))  # noqa: S311 - jitter, not a secret
        service.restarts += 1


def _traceback(error: Exception | None) -> Exception | None:
    """An outage needs no traceback."""
    return None if isinstance(error, ServerError) else error
