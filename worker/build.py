"""Puts the worker together: the services it runs, and those that tell how it is."""

from __future__ import annotations

from dataclasses import dataclass

from cachebus.history import process_name
from worker.engines import Engines, engines
from worker.health import Health
from worker.heartbeat import Heartbeat
from worker.loading import Application
from worker.roster import Announcer
from worker.settings import Settings
from worker.stop import Stop
from worker.supervisor import Service, Supervisor


@dataclass(frozen=True, slots=True)
class Worker:
    """A process that is put together and not yet running."""

    name: str
    supervisor: Supervisor
    health: Health


def build(settings: Settings, application: Application, stop: Stop) -> Worker:
    """Return the worker that *settings* ask for; the application's cache is connected. Starts nothing."""
    name = process_name()
    link = application.cache.link if settings.cache.redis_enabled else None
    work = engines(application, link, settings.bus, name) if link is not None else Engines()
    services = list(work.services())
    # Health looks at the services, and the last ones tell of it: the list is completed below.
    supervisor = Supervisor(services, drain_s=settings.process.drain_ms / 1000)
    health = Health(link, work, supervisor, stop)
    announcer = Announcer(name, health, link, Heartbeat(settings.process.data_dir))
    services.append(Service("heartbeat", announcer.run))
    if settings.process.port is not None:
        services.append(_pages(settings, application, work, health, settings.process.port))
    return Worker(name, supervisor, health)


def _pages(settings: Settings, application: Application, work: Engines, health: Health, port: int) -> Service:
    from worker import web  # noqa: PLC0415 - a worker without a port does without a web server
    from worker.metrics import Metrics  # noqa: PLC0415 - and without its metrics

    live = web.live_page(application.cache, work.scheduler, settings.bus.shards) if work.refresher is not None else []
    app = web.pages(health, Metrics(application.cache, work, health), live)
    return Service("pages", lambda: web.serve(app, settings.process.host, port))
