"""What does the work: events, plain messages, refreshes, schedules. Made here from the settings, run as services."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cachebus.bus.engine.bridge import Bridge
from cachebus.bus.engine.consumer import Consumer, ConsumerOptions
from cachebus.bus.engine.local_consumer import LocalConsumer
from cachebus.bus.engine.mover import Mover
from cachebus.bus.engine.refresher import Refresher
from cachebus.bus.publisher import Bus
from cachebus.bus.settings import BusSettings
from cachebus.cache.foresight.worth import Worth
from cachebus.integrations.rebroadcast import Rebroadcast, channels, socketio
from cachebus.process.supervisor import Service
from cachebus.redis.client import Client, Connector
from cachebus.schedules.scheduler import Scheduler
from cachebus.worker.loading import Application

if TYPE_CHECKING:
    from cachebus.integrations.sqlalchemy.relay import Relay


@dataclass(frozen=True, slots=True)
class Engines:
    """The engines of one worker."""

    consumers: list[Consumer | LocalConsumer] = field(default_factory=list)
    """One for each shard; those whose shard another worker holds stand by. Without Redis: one, for this process."""
    bridge: Bridge | None = None
    refresher: Refresher | None = None
    mover: Mover | None = None
    scheduler: Scheduler | None = None
    relay: Relay | None = None
    rebroadcast: Rebroadcast | None = None

    def services(self) -> Iterator[Service]:
        """Yield each engine as a service: all have `run` and `drain`."""
        for shard, consumer in enumerate(self.consumers):
            yield Service(f"events {shard}", consumer.run, consumer.drain)
        if self.bridge is not None:
            yield Service("bridge", self.bridge.run, self.bridge.drain, feeds=True)
        if self.refresher is not None:
            yield Service("refreshes", self.refresher.run, self.refresher.drain)
        if self.mover is not None:
            yield Service("delayed events", self.mover.run, self.mover.drain)
        if self.scheduler is not None:
            yield Service("schedules", self.scheduler.run, self.scheduler.drain)
        if self.relay is not None:
            yield Service("outbox", self.relay.run, self.relay.drain)
        if self.rebroadcast is not None:
            yield Service("rebroadcast", self.rebroadcast.run, self.rebroadcast.drain)


def engines(application: Application, client: Client, bus: BusSettings, worker: str) -> Engines:
    """Return what this application needs: no handlers, no consumers; no jobs, no clock. Starts nothing."""
    cache = application.cache
    return Engines(
        consumers=list(_consumers(application, client, bus, worker)) if application.handlers else [],
        bridge=Bridge(client, application.handlers, shards=bus.shards) if application.handlers else None,
        refresher=Refresher(client, cache.views, reading=cache.reading, worth=Worth(client, cache.views).is_likely),
        mover=Mover(client, shards=bus.shards, signatures=bus.signatures()),
        scheduler=Scheduler(client, application.jobs, worker=worker) if application.jobs else None,
        relay=_relay(application, client, bus),
        rebroadcast=_rebroadcast(client, bus),
    )


def local_engines(application: Application, bus: BusSettings) -> Engines:
    """Return what works without Redis: the events and schedules of this process alone. Starts nothing."""
    cache = application.cache
    consumer = LocalConsumer(
        cache,
        application.handlers,
        handler_limit=bus.handler_limit_ms / 1000,
        on_committed=lambda commit: cache.observed.fresh(commit.oldest_ms, commit.events),
    )
    return Engines(
        consumers=[consumer] if application.handlers else [],
        scheduler=Scheduler(cache, application.jobs) if application.jobs else None,
        relay=_relay(application, cache, bus),
    )


def _rebroadcast(client: Client, bus: BusSettings) -> Rebroadcast | None:
    forms = [socketio(bus.socketio_channel)] if bus.socketio_channel else []
    if bus.channels_prefix:
        forms.append(channels(bus.channels_prefix))
    return Rebroadcast(client, forms) if forms else None


def _relay(application: Application, connector: Connector, bus: BusSettings) -> Relay | None:
    if application.outbox is None:
        return None
    from cachebus.integrations.sqlalchemy.relay import Relay  # noqa: PLC0415 - a worker without an outbox does without SQLAlchemy

    return Relay(application.outbox, Bus(connector, shards=bus.shards, signatures=bus.signatures()))


def _consumers(application: Application, client: Client, bus: BusSettings, worker: str) -> Iterator[Consumer]:
    cache = application.cache
    options = ConsumerOptions(
        retention=bus.retention_ms / 1000,
        handler_limit=bus.handler_limit_ms / 1000,
        signatures=bus.signatures(),
        loading=cache.loading_only,
        on_committed=lambda commit: cache.observed.committed(commit.oldest_ms, commit.events, commit.scopes),
    )
    for shard in range(bus.shards):
        yield Consumer(
            client,
            application.handlers,
            shard=shard,
            shards=bus.shards,
            worker=worker,
            options=options,
        )
