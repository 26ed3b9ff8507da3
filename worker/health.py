"""How this worker is, in one word and a reason: asked by the heartbeat, the health pages and the metrics."""

from __future__ import annotations

from typing import NamedTuple

from cachebus import Link
from worker.engines import Engines
from worker.stop import Stop
from worker.supervisor import Supervisor


class State(NamedTuple):
    """One of ready, waiting (for Redis, to hear it, to empty the outbox), broken (a service), draining; and why.

    Only a `ready` worker does all its work. In every other state it lives, and a restart would not help.
    """

    word: str
    why: str = ""


class Health:
    """Looks; never acts."""

    def __init__(self, link: Link | None, engines: Engines, supervisor: Supervisor, stop: Stop) -> None:
        self._link = link
        self._engines = engines
        self.supervisor = supervisor
        self._stop = stop

    def state(self) -> State:
        """Return how it is now. No round trip."""
        if self._stop.signal:
            return State("draining", self._stop.signal)
        if self._link is not None:
            for server, name in ((self._link.store, "redis"), (self._link.entries, "the entries' redis")):
                if not server.up:
                    return State("waiting", f"{name} is away")
        if broken := self.supervisor.broken:
            return State("broken", "; ".join(f"{name}: {why}" for name, why in broken.items()))
        if self._engines.bridge is not None and not self._engines.bridge.listening:
            return State("waiting", "plain messages are not heard yet")
        if self._engines.relay is not None and self._engines.relay.problem:
            return State("waiting", f"the outbox: {self._engines.relay.problem}")
        return State("ready")

    def outbox(self) -> dict[str, float]:
        """Return what the outbox's relay counts; nothing where there is none."""
        if self._engines.relay is None:
            return {}
        stats = self._engines.relay.stats
        return {"relayed": stats.relayed, "refused": stats.refused, "waiting": stats.waiting, "lag_s": stats.lag_s}
