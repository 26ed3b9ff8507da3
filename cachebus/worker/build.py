"""Puts the worker together: the services it runs, and those that tell how it is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from cachebus.cache.upkeep.reporter import process_name
from cachebus.monitoring.verdict.chronicle import AlertRules
from cachebus.monitoring.verdict.gathering import Gathering
from cachebus.monitoring.verdict.watch import LOOK_S, QUIET_S, Watch
from cachebus.monitoring.verdict.webhook import Webhook
from cachebus.process.signals import Stop
from cachebus.process.supervisor import Service, Supervisor
from cachebus.redis.client import Client
from cachebus.schedules.known_jobs import announce_jobs, run_asked_jobs
from cachebus.schedules.scheduler import Scheduler
from cachebus.worker.engines import Engines, engines, local_engines
from cachebus.worker.health.announcer import Announcer
from cachebus.worker.health.health import Health
from cachebus.worker.health.heartbeat import Heartbeat
from cachebus.worker.health.readiness import Readiness
from cachebus.worker.loading import Application
from cachebus.worker.settings import WorkerSettings


@dataclass(frozen=True, slots=True)
class Worker:
    """A process that is put together and not yet running."""

    name: str
    supervisor: Supervisor
    health: Health


def build(settings: WorkerSettings, application: Application, stop: Stop) -> Worker:
    """Return the worker that *settings* ask for; the application's cache is connected. Starts nothing."""
    name = process_name()
    client = application.cache.client if settings.cache.redis_enabled else None
    work = (
        engines(application, client, settings.bus, name)
        if client is not None
        else local_engines(application, settings.bus)
    )
    services = list(work.services())
    # Health looks at the services, and the last ones tell of it: the list is completed below.
    supervisor = Supervisor(services, drain_s=settings.process.drain_ms / 1000)
    readiness = Readiness(application.ready_check) if application.ready_check is not None else None
    if readiness is not None:
        services.append(Service("ready check", readiness.run))
    health = Health(client, work, supervisor, stop, readiness)
    announcer = Announcer(name, health, client, Heartbeat(settings.process.data_dir))
    services.append(Service("heartbeat", announcer.run))
    if client is not None:
        services += _watching(settings, client, work.scheduler, name)
    if settings.process.port is not None:
        services.append(_pages(settings, application, work, health, settings.process.port))
    return Worker(name, supervisor, health)


def _watching(settings: WorkerSettings, client: Client, scheduler: Scheduler | None, name: str) -> Iterator[Service]:
    """Yield what tells others how the deployment is, and which jobs there are."""
    alerts, pause_s = settings.alerts, QUIET_S if settings.cache.quiet else LOOK_S
    watch = Watch(
        Gathering(client, shards=settings.bus.shards, scheduler=scheduler),
        name=name,
        rules=AlertRules(alerts.url is not None, alerts.level, alerts.after_ms),
        webhook=Webhook(alerts.url, alerts.form or "") if alerts.url is not None else None,
        page=alerts.page or "",
        pause_s=pause_s,
    )
    yield Service("watch", watch.run)
    if scheduler is not None:
        yield Service("job list", lambda: announce_jobs(scheduler, client, pause_s))
        yield Service("asked jobs", lambda: run_asked_jobs(scheduler, client))


def _pages(settings: WorkerSettings, application: Application, work: Engines, health: Health, port: int) -> Service:
    from cachebus.monitoring import page  # noqa: PLC0415 - likewise
    from cachebus.worker.health import web  # noqa: PLC0415 - a worker without a port does without a web server
    from cachebus.worker.health.metrics import metrics_page  # noqa: PLC0415 - and without its metrics

    live = (
        page.routes(
            application.cache,
            scheduler=work.scheduler,
            shards=settings.bus.shards,
            open_to_all=settings.page.open_to_all,
        )
        if work.refresher is not None
        else []
    )
    app = web.pages(health, metrics_page(application.cache, work, health), live)
    return Service("pages", lambda: web.serve(app, settings.process.host, port, settings.process.listen_fd))
