"""Puts the worker together: which services there are, and how each is drained."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from cachebus import Cache, Link
from cachebus.bridge import Bridge
from cachebus.consumer import Consumer
from cachebus.refreshes import Refresher
from cachebus.scheduler import Run, Scheduler
from cachebus.schedules import Job
from cachebus.warming import Warm
from worker.health import Health
from worker.heartbeat import Heartbeat
from worker.loading import Application
from worker.roster import Announcer, worker_name
from worker.settings import BusSettings, CannotStart, Settings
from worker.stop import Stop
from worker.supervisor import Service, Supervisor


@dataclass(frozen=True, slots=True)
class Worker:
    """A process that is put together and not yet running."""

    name: str
    supervisor: Supervisor
    health: Health


def build(settings: Settings, application: Application, stop: Stop) -> Worker:
    """Return the worker that *settings* ask for; the application's cache is connected. Starts nothing.

    Raises: CannotStart when the port is taken.
    """
    name = worker_name(os.environ)
    cache = application.cache
    link = cache.link if settings.cache.redis_enabled else None
    consumers = list(_consumers(application, link, settings.bus, name)) if link is not None else []
    services = [Service(f"events {number}", each.run, each.drain) for number, each in enumerate(consumers)]
    if link is not None:
        services += _plumbing(application, link, settings.bus, name)
    # Health looks at the services and is told of by two of them, so the list is completed below.
    supervisor = Supervisor(services, drain_s=settings.process.drain_ms / 1000)
    health = Health(link, supervisor, stop)
    announcer = Announcer(name, health, link, Heartbeat(settings.process.data_dir))
    services.append(Service("heartbeat", announcer.run))
    if settings.process.port is not None:
        services.append(_pages(settings, cache, consumers, supervisor, health, settings.process.port))
    return Worker(name, supervisor, health)


def scheduler(link: Link, jobs: list[Job], worker: str) -> Scheduler:
    """Return what runs *jobs*, each told how far its warming has come."""

    def warm(run: Run) -> Warm:
        def said(progress: str) -> None:
            run.progress = progress

        return Warm(link, said)

    return Scheduler(link, jobs, worker=worker, warm=warm)


def _consumers(application: Application, link: Link, bus: BusSettings, name: str) -> Iterator[Consumer]:
    """One for each shard; those whose shard another worker holds stand by."""
    cache = application.cache
    for shard in range(bus.shards if application.handlers else 0):
        yield Consumer(
            link,
            application.handlers,
            shard=shard,
            shards=bus.shards,
            worker=name,
            retention=bus.retention_ms / 1000,
            loading=cache.loading_only,
            seen=lambda: cache.reader.freshness.seen if cache.reader is not None else 0,
        )


def _plumbing(application: Application, link: Link, bus: BusSettings, name: str) -> Iterator[Service]:
    """What brings plain messages into the stream, refreshes what events made old, and watches the clock."""
    if application.handlers:
        bridge = Bridge(link, application.handlers, shards=bus.shards)
        yield Service("bridge", bridge.run, bridge.drain)
    refresher = Refresher(link, application.cache.views, worker=name)
    yield Service("refreshes", refresher.run, refresher.drain)
    if application.jobs:
        watch = scheduler(link, application.jobs, name)
        yield Service("schedules", watch.run, watch.drain)


def _pages(
    settings: Settings, cache: Cache, consumers: list[Consumer], supervisor: Supervisor, health: Health, port: int
) -> Service:
    from worker import web  # noqa: PLC0415 - a worker without a port does without a web server
    from worker.metrics import Metrics  # noqa: PLC0415 - and without its metrics

    host = settings.process.host
    try:
        web.listen(host, port).close()
    except OSError as taken:
        raise CannotStart([f"PORT: {port} cannot be opened: {taken.strerror}; choose another port"]) from None
    app = web.pages(health, Metrics(cache, consumers, health, supervisor))
    return Service("pages", lambda: web.serve(app, host, port))
