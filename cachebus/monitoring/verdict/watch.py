"""The watch of a deployment: one worker looks every ten seconds, and notes and tells when the state changes.

Without it nobody would know at nine since when something is so that began at three.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

from msgspec.structs import replace

from cachebus.cache.upkeep.reporter import ENVIRONMENT_NAMES, first_of, release_of
from cachebus.errors import LockUnavailable, ServerError
from cachebus.monitoring.verdict.alerting import AlertMessage, alert_of
from cachebus.monitoring.verdict.chronicle import AlertRules, Chronicle, WatchState
from cachebus.monitoring.verdict.gathering import Gathering, Glance
from cachebus.monitoring.verdict.webhook import NotDelivered, Webhook

log = logging.getLogger("cachebus")

LOOK_S, QUIET_S = 10.0, 60.0
"""The second where each command costs money (`CACHE_QUIET`)."""
LEASE_LOOKS = 3.5
SAMPLE_MS = 60_000


class Watch:
    """Watches while this worker is the one that does: the first that asks, and the next when that has gone."""

    def __init__(
        self,
        gathering: Gathering,
        *,
        name: str,
        rules: AlertRules,
        webhook: Webhook | None = None,
        page: str = "",
        pause_s: float = LOOK_S,
    ) -> None:
        self._gathering = gathering
        self._client = gathering.client
        self._name = name
        self._rules = rules
        self._webhook = webhook
        self._page = page
        self._pause_s = pause_s
        self._chronicle = Chronicle(self._client)
        self._state: WatchState | None = None
        self._sampled_ms = 0.0
        self._undelivered = ""
        self._unnoted: list[Glance] = []
        """Changes that could not be written down while Redis was away."""

    async def run(self) -> None:
        """Watch until cancelled."""
        try:
            while True:
                with suppress(ServerError, LockUnavailable):  # the next look says so
                    await self.look()
                await asyncio.sleep(self._pause_s)
        finally:
            await self._leave()

    async def look(self) -> None:
        """Look once, if it is this worker's turn. Raises: ServerError."""
        glance = await self._gathering.glance()
        if glance.known is None:
            if self._state is not None:  # whoever watched last goes on: nobody can be asked now
                await self._changed(self._state, glance)
            return
        if not await self._mine():
            self._state = None
            return
        if self._state is None:
            self._state = await self._chronicle.state() or WatchState()
        state = self._state
        await self._changed(state, glance)
        state.at_ms = glance.at_ms
        state.first_ms = {each.key: each.since_ms for each in glance.verdict.reasons}
        state.rules = self._rules
        while self._unnoted:
            change = self._unnoted[0]
            await self._chronicle.note_change(change.at_ms, change.verdict)
            self._unnoted.pop(0)
        if glance.at_ms - self._sampled_ms >= SAMPLE_MS:
            self._sampled_ms = glance.at_ms
            await self._chronicle.note_sample(glance.at_ms, glance.servers)
        await self._chronicle.keep_state(state)

    async def _changed(self, state: WatchState, glance: Glance) -> None:
        """Note what changed since the last look, and tell it."""
        found = glance.verdict
        if found.level != state.level:
            log.log(logging.INFO if found.level == "ok" else logging.WARNING, "state %s: %s", found.level, found.says)
            self._unnoted = [*self._unnoted, glance][-20:]
        state.level, state.says = found.level, found.says
        firing, alert = alert_of(state, found, glance.at_ms, self._rules)
        if alert is None or await self._tell(alert):
            state.firing = firing

    async def _tell(self, alert: AlertMessage) -> bool:
        """Send a message; False where it is to be tried again: it was refused, or somebody asked for silence."""
        if self._webhook is None:
            return True
        with suppress(ServerError):
            if await self._chronicle.silence() is not None:
                return False
        names = self._client.names
        about = replace(
            alert,
            environment=first_of(ENVIRONMENT_NAMES)[1],
            namespace=names.namespace,
            release=release_of(),
            page=self._page,
        )
        try:
            await self._webhook.send(about)
        except NotDelivered as refused:
            if str(refused) != self._undelivered:
                log.warning("alert not delivered, tried again: %s", refused)
            self._undelivered = str(refused)
            return False
        log.info("alert sent: %s, %s", alert.state, ", ".join(each.key for each in alert.reasons) or "nothing is wrong")
        self._undelivered = ""
        return True

    async def _mine(self) -> bool:
        """Whether this worker is the one that watches, from now on for three looks."""
        key, call = self._client.names.bus("watch"), self._client.store.call
        lease_ms = round(LEASE_LOOKS * self._pause_s * 1000)
        if await call("SET", key, self._name, "NX", "PX", lease_ms):
            return True
        if await call("GET", key) != self._name.encode():
            return False
        return bool(await call("SET", key, self._name, "XX", "PX", lease_ms))

    async def _leave(self) -> None:
        """Let another worker watch at once."""
        if self._state is None or not self._client.store.up:
            return
        with suppress(ServerError):
            if await self._client.store.call("GET", self._client.names.bus("watch")) == self._name.encode():
                await self._client.store.call("DEL", self._client.names.bus("watch"))
