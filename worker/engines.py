"""What does the work: events, plain messages, refreshes, schedules. Made here from the settings, run as services."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cachebus import Link, adapters
from cachebus.bridge import Bridge
from cachebus.bus import Bus
from cachebus.consumer import Consumer
from cachebus.rebroadcast import Rebroadcast
from cachebus.refreshes import Refresher
from cachebus.scheduler import Scheduler
from worker.loading import Application
from worker.settings import BusSettings
from worker.supervisor import Service

if TYPE_CHECKING:
    from cachebus.relay import Relay


@dataclass(frozen=True, slots=True)
class Engines:
    """The engines of one worker; none of them without Redis."""

    consumers: list[Consumer] = field(default_factory=list)
    """One for each shard; those whose shard another worker holds stand by."""
    bridge: Bridge | None = None
    refresher: Refresher | None = None
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
        if self.scheduler is not None:
            yield Service("schedules", self.scheduler.run, self.scheduler.drain)
        if self.relay is not None:
            yield Service("outbox", self.relay.run, self.relay.drain)
        if self.rebroadcast is not None:
            yield Service("rebroadcast", self.rebroadcast.run, self.rebroadcast.drain)


def engines(application: Application, link: Link, bus: BusSettings, worker: str) -> Engines:
    """Return what this application needs: no handlers, no consumers; no jobs, no clock. Starts nothing."""
    cache = application.cache
    return Engines(
        consumers=list(_consumers(application, link, bus, worker)) if application.handlers else [],
        bridge=Bridge(link, application.handlers, shards=bus.shards) if application.handlers else None,
        refresher=Refresher(link, cache.views, reading=cache.reading),
        scheduler=Scheduler(link, application.jobs, worker=worker) if application.jobs else None,
        relay=_relay(application, link, bus),
        rebroadcast=_rebroadcast(link, bus),
    )


def _rebroadcast(link: Link, bus: BusSettings) -> Rebroadcast | None:
    forms = [adapters.socketio(bus.socketio_channel)] if bus.socketio_channel else []
    if bus.channels_prefix:
        forms.append(adapters.channels(bus.channels_prefix))
    return Rebroadcast(link, forms) if forms else None


def _relay(application: Application, link: Link, bus: BusSettings) -> Relay | None:
    if application.outbox is None:
        return None
    from cachebus.relay import Relay  # noqa: PLC0415 - a worker without an outbox does without SQLAlchemy

    return Relay(application.outbox, Bus(link, shards=bus.shards, signatures=bus.signatures()))


def _consumers(application: Application, link: Link, bus: BusSettings, worker: str) -> Iterator[Consumer]:
    cache = application.cache
    for shard in range(bus.shards):
        yield Consumer(
            link,
            application.handlers,
            shard=shard,
            shards=bus.shards,
            worker=worker,
            retention=bus.retention_ms / 1000,
            signatures=bus.signatures(),
            loading=cache.loading_only,
            seen=lambda: cache.reader.freshness.seen if cache.reader is not None else 0,
            on_committed=lambda commit: cache.observed.fresh(commit.oldest_ms, commit.events),
        )
