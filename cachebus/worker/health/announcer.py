"""Who is at work: every worker says so, in a file for its machine and in Redis for everyone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec
import structlog

from cachebus.errors import ServerError
from cachebus.monitoring.workers import WorkerEntry
from cachebus.redis.client import Client
from cachebus.worker.health.health import Health, State
from cachebus.worker.health.heartbeat import BEAT_S, Heartbeat

log = structlog.get_logger("worker")

LOOK_S = 0.5
"""How soon a change of state is said."""
FORGET_S = 3600
"""The list in Redis ends by itself this long after the last worker."""


class Announcer:
    """Says how this worker is: at every change, and every few seconds."""

    def __init__(self, name: str, health: Health, client: Client | None, heartbeat: Heartbeat) -> None:
        self._name = name
        self._health = health
        self._client = client
        self._heartbeat = heartbeat
        self._disk_refused = False

    async def run(self) -> None:
        """Speak until cancelled; leaves nothing behind."""
        now = asyncio.get_running_loop().time
        said, said_at = State(""), 0.0
        lasts_until = 0.0
        self._on_disk(self._heartbeat.begin)
        try:
            while True:
                state = self._health.state()
                if state.word not in {said.word, "draining"}:
                    log.info("worker %s", state.word, **({"why": state.why} if state.why else {}))
                if state != said or now() - said_at >= BEAT_S:
                    said, said_at = state, now()
                    self._on_disk(self._heartbeat.beat, *state)
                    if await self._in_redis(state, lasting=now() > lasts_until):
                        lasts_until = now() + FORGET_S / 2
                await asyncio.sleep(LOOK_S)
        finally:
            self._on_disk(self._heartbeat.remove)
            await self._leave()

    def _on_disk(self, write: Callable[..., None], *said: str) -> None:
        try:
            write(*said)
        except OSError as refused:  # a read-only disk is no reason to stop working
            if not self._disk_refused:
                self._disk_refused = True
                log.warning("no heartbeat file can be written: `check` does not find this worker", error=str(refused))

    async def _in_redis(self, state: State, *, lasting: bool) -> bool:
        """Put the entry on the roster; *lasting*: and let the roster live on. Returns whether that was done."""
        if self._client is None or not self._client.store.up:
            return False
        entry = WorkerEntry(self._name, self._client.now_us(), *state)
        roster = self._client.names.bus("workers")
        try:
            await self._client.store.call("HSET", roster, self._name, msgspec.json.encode(entry))
            return lasting and bool(await self._client.store.call("EXPIRE", roster, FORGET_S))
        except ServerError as unavailable:
            log.debug("not announced", error=str(unavailable))
            return False

    async def _leave(self) -> None:
        if self._client is None or not self._client.store.up:
            return
        try:
            await self._client.store.call("HDEL", self._client.names.bus("workers"), self._name)
        except ServerError as unavailable:
            log.debug("not signed off", error=str(unavailable))
