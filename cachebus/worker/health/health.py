"""How this worker is, in one word and a reason: asked by the heartbeat, the health pages and the metrics."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from cachebus.process.signals import Stop
from cachebus.process.supervisor import Supervisor
from cachebus.redis.client import Client
from cachebus.worker.engines import Engines
from cachebus.worker.health.readiness import Readiness


class State(NamedTuple):
    """One of ready, waiting (for Redis, the outbox, the application), broken (a service), draining; and why.

    Only a `ready` worker does all its work. In every other state it lives, and a restart would not help.
    """

    word: str
    why: str = ""


class Health:
    """Looks; never acts."""

    def __init__(
        self,
        client: Client | None,
        engines: Engines,
        supervisor: Supervisor,
        stop: Stop,
        readiness: Readiness | None = None,
    ) -> None:
        self._client = client
        self._engines = engines
        self.supervisor = supervisor
        self._stop = stop
        self._readiness = readiness

    def state(self) -> State:
        """Return how it is now. No round trip."""
        if self._stop.signal:
            return State("draining", self._stop.signal)
        if reason := self._waits_for_redis():
            return State("waiting", reason)
        if broken := self.supervisor.broken:
            return State("broken", "; ".join(f"{name}: {why}" for name, why in broken.items()))
        if reason := next(self._waits(), ""):
            return State("waiting", reason)
        return State("ready")

    def _waits_for_redis(self) -> str:
        if self._client is not None:
            for server, name in ((self._client.store, "redis"), (self._client.entries, "the entries' redis")):
                if not server.up:
                    return f"{name} unavailable"
        return ""

    def _waits(self) -> Iterator[str]:
        if self._engines.bridge is not None and not self._engines.bridge.listening:
            yield "plain messages are not heard yet"
        if self._engines.relay is not None and self._engines.relay.problem:
            yield f"the outbox: {self._engines.relay.problem}"
        if self._readiness is not None and self._readiness.problem:
            yield f"the application: {self._readiness.problem}"

    def outbox(self) -> dict[str, float]:
        """Return what the outbox's relay counts; nothing where there is none."""
        if self._engines.relay is None:
            return {}
        stats = self._engines.relay.stats
        return {"relayed": stats.relayed, "refused": stats.refused, "waiting": stats.waiting, "lag_s": stats.lag_s}
