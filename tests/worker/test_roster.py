"""Every worker says how it is, where its platform and its colleagues can read it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import msgspec
import pytest

from cachebus import Cache
from cachebus.cache.upkeep.reporter import process_name
from cachebus.monitoring.workers import WorkerEntry, workers
from cachebus.process.signals import Stop
from cachebus.process.supervisor import Service, Supervisor
from cachebus.worker.engines import Engines
from cachebus.worker.health import announcer, heartbeat
from cachebus.worker.health.announcer import Announcer
from cachebus.worker.health.health import Health, State
from cachebus.worker.health.heartbeat import SILENT_S, Heartbeat


async def never() -> None:
    await asyncio.Event().wait()


async def listed(cache: Cache, state: str) -> None:
    """Wait until the roster has a worker in this state."""
    async with asyncio.timeout(10):
        while state not in {entry.state for entry in await workers(cache.client)}:  # noqa: ASYNC110 - asks Redis
            await asyncio.sleep(0.01)


def health_of(cache: Cache) -> tuple[Health, Service, Stop]:
    """A worker with one service, and what changes its health."""
    service, stop = Service("bus", never), Stop(1)
    return Health(cache.client, Engines(), Supervisor([service], drain_s=1), stop), service, stop


async def test_health_is_one_word_and_a_reason(cache: Cache) -> None:
    """Ready, broken with the service's name, draining with the signal's."""
    health, service, stop = health_of(cache)
    assert health.state() == State("ready")
    service.broken = "RuntimeError: boom"
    assert health.state() == State("broken", "bus: RuntimeError: boom")
    stop.signal = "SIGTERM"
    assert health.state() == State("draining", "SIGTERM")


async def test_a_worker_is_on_the_roster_while_it_lives(
    cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is listed with its state, at once when that changes; the file says the same; both are gone when it ends."""
    monkeypatch.setattr(announcer, "BEAT_S", 3600.0)
    health, service, _ = health_of(cache)
    heartbeat = Heartbeat(str(tmp_path))
    telling = asyncio.create_task(Announcer("web.1", health, cache.client, heartbeat).run())
    await listed(cache, "ready")
    service.broken = "RuntimeError: boom"
    await listed(cache, "broken")
    assert json.loads(heartbeat.path.read_text())["state"] == "broken"
    assert await cache.client.store.call("TTL", cache.client.names.bus("workers")) > 0
    telling.cancel()
    await asyncio.gather(telling, return_exceptions=True)
    assert await workers(cache.client) == []
    assert not heartbeat.path.exists()


async def test_a_killed_worker_is_struck_off(cache: Cache) -> None:
    """One that has been silent too long is not listed, and forgotten; times are the server's."""
    names = cache.client.names
    for name, silent_s in (("living", 0.0), ("killed", SILENT_S + 1)):
        entry = WorkerEntry(name, cache.client.now_us() - int(silent_s * 1e6), "ready", "")
        await cache.client.store.call("HSET", names.bus("workers"), name, msgspec.json.encode(entry))
    assert [worker.name for worker in await workers(cache.client)] == ["living"]
    assert await cache.client.store.call("HKEYS", names.bus("workers")) == [b"living"]


async def test_a_disk_that_refuses_does_not_stop_it(
    cache: Cache, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no folder can be written there is one warning and no file; the roster in Redis works on."""
    monkeypatch.setattr(heartbeat, "SUBSTITUTES", ())
    (tmp_path / "workers").write_text("in the way")
    health, _, _ = health_of(cache)
    service = asyncio.create_task(Announcer("web.1", health, cache.client, Heartbeat(str(tmp_path))).run())
    await listed(cache, "ready")
    service.cancel()
    await asyncio.gather(service, return_exceptions=True)
    assert capsys.readouterr().out.count("no heartbeat file") == 1


def test_a_worker_is_named_as_its_platform_names_it() -> None:
    """On Heroku the name is the dyno's, elsewhere the machine's, with the process id."""
    assert process_name({"DYNO": "worker.1"}).startswith("worker.1.")
    assert process_name({}).rpartition(".")[2].isdigit()
