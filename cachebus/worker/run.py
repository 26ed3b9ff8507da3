"""Runs the worker: load, connect, build, work until SIGTERM, drain."""

from __future__ import annotations

import argparse
import asyncio
import gc
from collections.abc import Callable, Mapping
from time import monotonic

import structlog

from cachebus.cache.upkeep.reporter import names_of_process
from cachebus.environment import warn_once
from cachebus.integrations.set_up import trace_if_set_up
from cachebus.process import logs
from cachebus.process.listening import refuse_taken
from cachebus.process.signals import Stop
from cachebus.worker.build import build
from cachebus.worker.loading import Application, load
from cachebus.worker.settings import WorkerSettings

log = structlog.get_logger("worker")


def main(_asked: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Run until SIGTERM or SIGINT; returns the exit code, 0 after a drain.

    Raises: CannotStart, before anything is started. An outage is waited out, never a reason to end.
    """
    settings = WorkerSettings.from_environment(environment)
    logs.configure(settings.log.level, settings.log.format, settings.masking(), named=names_of_process())
    stop = Stop(settings.process.drain_ms / 1000)
    stop.install()
    for warning in settings.unknown:
        warn_once(warning)
    application = load(settings.application)
    trace_if_set_up(application.cache)
    if settings.process.port is not None:
        refuse_taken(settings.process.host, settings.process.port, settings.process.listen_fd)
    for warning in application.warnings:
        log.warning(warning)
    # What is loaded stays: collections need not look at it again. Measured: 0.3 s less at exit, shorter pauses before.
    gc.collect()
    gc.freeze()
    with asyncio.Runner(loop_factory=_fast_loop()) as runner:
        try:
            runner.run(_work(settings, application, stop))
        except BaseException:
            stop.limit()  # leaving the runner waits for every task, also for one that swallows its cancellation
            stop.warn_before_limit(runner.get_loop())
            raise
    stop.finished()
    return 0


async def _work(settings: WorkerSettings, application: Application, stop: Stop) -> None:
    with stop.listening():
        await _serve(settings, application, stop)
    log.info("worker stopped", signal=stop.signal, drained_s=round(monotonic() - stop.at, 3))


async def _serve(settings: WorkerSettings, application: Application, stop: Stop) -> None:
    async with application.connected() as cache:
        if not settings.cache.redis_enabled:
            log.warning("REDIS_ENABLED=false: this worker handles the events and schedules of its own process alone")
        worker = build(settings, application, stop)
        log.info(
            "worker started",
            name=worker.name,
            services=[service.name for service in worker.supervisor.services],
            handlers=len(application.handlers),
            jobs=len(application.jobs),
            views=len(cache.views),
            state=worker.health.state().word,
        )
        await worker.supervisor.run(stop.event)


def _fast_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return uvloop's loop where it is installed, else None: asyncio's own."""
    try:
        import uvloop  # noqa: PLC0415 - optional
    except ImportError:
        return None
    return uvloop.new_event_loop
