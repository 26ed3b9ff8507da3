"""Who is at work: every worker says so, in a file for its machine and in Redis for everyone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec
import structlog

from cachebus import Link, ServerError
from cachebus.roster import Entry
from worker.health import Health, State
from worker.heartbeat import BEAT_S, Heartbeat

log = structlog.get_logger("worker")

LOOK_S = 0.5
"""How soon a change of state is said."""
FORGET_S = 3600
"""The list in Redis ends by itself this long after the last worker."""


class Announcer:
    """Says how this worker is: at every change, and every few seconds."""

    def __init__(self, name: str, health: Health, link: Link | None, heartbeat: Heartbeat) -> None:
        self._name = name
        self._health = health
        self._link = link
        self._heartbeat = heartbeat
        self._disk_refused = False

    async def run(self) -> None:
        """Speak until cancelled; leaves nothing behind."""
        now = asyncio.get_running_loop().time
        said, said_at = State(""), 0.0
        lasts_until = 0.0
        self._on_disk(self._heartbeat.clear_dead)
        try:
            while True:
                state = self._health.state()
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
                log.warning("no heartbeat file: `check` does not find this worker", error=str(refused))

    async def _in_redis(self, state: State, *, lasting: bool) -> bool:
        """Put the entry on the roster; *lasting*: and let the roster live on. Returns whether that was done."""
        if self._link is None or not self._link.store.up:
            return False
        entry = Entry(self._name, self._link.now_us(), *state)
        roster = self._link.names.bus("workers")
        try:
            await self._link.store.call("HSET", roster, self._name, msgspec.json.encode(entry))
            return lasting and bool(await self._link.store.call("EXPIRE", roster, FORGET_S))
        except ServerError as away:
            log.debug("not announced", error=str(away))
            return False

    async def _leave(self) -> None:
        if self._link is None or not self._link.store.up:
            return
        try:
            await self._link.store.call("HDEL", self._link.names.bus("workers"), self._name)
        except ServerError as away:
            log.debug("not signed off", error=str(away))
