"""Keeps named services running: restarts what fails, after a pause; drains them all at the end."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import anyio
import structlog

from cachebus.durations import backoff_s
from cachebus.errors import ServerError

log = structlog.get_logger("worker")

FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0
"""Short enough to be back soon after the cause is gone, long enough to cost nothing meanwhile."""
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
    when work in progress is finished or left to others; `run` is cancelled afterwards.
    """

    name: str
    run: Callable[[], Coroutine[Any, Any, None]]
    drain: Callable[[], Coroutine[Any, Any, None]] | None = None
    feeds: bool = False
    """Its drain passes work to the others: it is drained before them."""
    broken: str = field(default="", init=False)
    """Why it is not running, '' while it is."""
    restarts: int = field(default=0, init=False)

    def recovered(self) -> None:
        """Note that it runs."""
        if self.broken:
            self.broken = ""
            log.info("service running again", service=self.name, restarts=self.restarts)


def pause_s(failures: int, draw: float) -> float:
    """Return how long to wait after this many failures in a row; *draw* in [0, 1) spreads workers apart. Pure."""
    return backoff_s(failures, FIRST_PAUSE_S, LONGEST_PAUSE_S, draw)


class Supervisor:
    """Runs services side by side. One that fails never ends another, nor the process."""

    def __init__(self, services: Sequence[Service], *, drain_s: float) -> None:
        self.services = services
        self._drain_s = drain_s

    @property
    def broken(self) -> dict[str, str]:
        """Services that are not running, and why."""
        return {service.name: service.broken for service in self.services if service.broken}

    async def run(self, stop: asyncio.Event) -> None:
        """Run every service until *stop* is set, then drain them. Raises nothing of theirs."""
        async with anyio.create_task_group() as keepers:
            for service in self.services:
                keepers.start_soon(_keep, service)
            await stop.wait()
            await self._drain()
            keepers.cancel_scope.cancel()

    async def _drain(self) -> None:
        """Stop intake, those that feed others first; a slow service does not use up the time of those beside it."""
        deadline = anyio.current_time() + self._drain_s
        for feeds in (True, False):
            draining = {
                asyncio.create_task(service.drain()): service.name
                for service in self.services
                if service.drain is not None and service.feeds is feeds
            }
            if draining:
                with anyio.move_on_after(deadline - anyio.current_time()):
                    await asyncio.wait(draining)
                _tell(draining)


def _tell(draining: Mapping[asyncio.Task[None], str]) -> None:
    """Log the drains that failed or took too long, and end those."""
    for drain, service in draining.items():
        if not drain.done():
            log.warning("drain budget exceeded; the rest is left to other workers", service=service)
            drain.cancel()
        elif not drain.cancelled() and (error := drain.exception()):
            log.warning("drain failed", service=service, error=repr(error))


async def _keep(service: Service) -> None:
    """Run one service until cancelled. A failure is logged once per change of its reason, not once per attempt."""
    failures, logged = 0, ""
    while True:
        started = anyio.current_time()
        reason, error = await _attempt(service)
        if anyio.current_time() - started > STEADY_S:
            failures, logged = 0, ""
        failures += 1
        service.broken = reason
        if reason != logged:
            logged = reason
            log.error("service failed; restarting", service=service.name, error=reason, exc_info=_traceback(error))
        await anyio.sleep(pause_s(failures, random.random()))  # noqa: S311 - jitter, not a secret
        service.restarts += 1


async def _attempt(service: Service) -> tuple[str, BaseException | None]:
    """Run a service once; returns why it ended.

    It is a task of its own, outside the scope of the keepers: what it runs is cancelled once, not at each turn of the
    loop for as long as it swallows the cancellation.
    """
    with structlog.contextvars.bound_contextvars(service=service.name):  # its lines, and those of what it runs
        running = asyncio.create_task(service.run(), name=service.name)
    settled = asyncio.get_running_loop().call_later(SETTLED_S, service.recovered)
    try:
        await asyncio.wait({running})
    finally:
        settled.cancel()
        running.cancel()
        with anyio.move_on_after(CANCEL_S, shield=True):
            await asyncio.wait({running})
        if not running.done():
            log.warning("service did not end when cancelled", service=service.name)
    if running.cancelled():
        return "it was cancelled", None
    error = running.exception()
    return ("it ended by itself" if error is None else f"{type(error).__name__}: {error}"), error


def _traceback(error: BaseException | None) -> BaseException | None:
    """An outage needs no traceback."""
    return None if isinstance(error, ServerError) else error
