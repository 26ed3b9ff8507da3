"""What happens in a deployment, for people who watch: causes, what they made invalid, whom that was told to.

Nothing is written for it and nobody pays while nobody looks. A look is one script, so that a commit is seen whole.
Which event or person made what invalid is what the journal says (`freshness.cause`); nothing is guessed from times.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec.structs import replace

from cachebus.bus.events import InvalidEvent, read_record
from cachebus.freshness.cause import read_causes
from cachebus.freshness.clock import parse_clock
from cachebus.redis.client import Client
from cachebus.redis.replies import named

MOST = 60
"""Records of each kind in one look; what is older is left out, and that is said."""
SHOWN = 12
"""Scopes, topics and events named in one happening; of the rest there is a number."""
LONGEST_PAYLOAD = 400
TIMEOUT_S = 2.0


class Seen(msgspec.Struct, frozen=True):
    """One event that was handled."""

    channel: str
    """'' where its record is gone, as after a retry."""
    key: str
    id: str
    at_ms: int
    payload: str
    handlers: list[str] = []
    """Those that made something invalid because of it."""


class Actor(msgspec.Struct, frozen=True):
    """A cause that is no event: who invalidated, and what they did."""

    kind: str
    who: str
    what: str


class Told(msgspec.Struct, frozen=True):
    """One broadcast."""

    topic: str
    type: str


class Happening(msgspec.Struct):
    """A step of the ledger: its causes, and what they led to; or an event or broadcast without any."""

    at_ms: float
    clock: int
    """The invalidation's, microseconds; 0 where nothing was invalidated."""
    events: list[Seen]
    scopes: list[str]
    told: list[Told]
    causes: list[Actor] = []
    """Beside the events."""
    more_scopes: int = 0
    more_told: int = 0
    more_events: int = 0
    latency_ms: float | None = None
    """From the publication of the oldest of these events until nobody reads older values."""


class Timeline:
    """Looks at a deployment again and again. One for all who watch from a process."""

    def __init__(self, client: Client, *, shards: int = 1) -> None:
        self._client = client
        names = client.names
        pairs = ((names.bus("events", str(number)), names.bus("shard", str(number))) for number in range(shards))
        self._keys = [names.journal, names.feed, *(key for pair in pairs for key in pair)]
        self._last = ["-"] * (2 + shards)

    async def look(self) -> list[Happening]:
        """Return what happened since the last look, oldest first; at first, the last few. Raises: ServerError."""
        begins = self._last[0] == "-"
        reply = await self._client.store.run(
            "monitoring/look_at_timeline", self._keys, (MOST, *self._last), timeout_s=TIMEOUT_S
        )
        journal, feed, *shards = reply
        for at, records in enumerate((journal, feed)):
            if records:
                self._last[at] = records[0][0].decode()
        for at, (position, _) in enumerate(shards, start=2):
            self._last[at] = position.decode()
        events = [record for _, records in shards for record in reversed(records)]
        return _happenings(journal[::-1], feed[::-1], events, partial=begins or len(journal) >= MOST)


def _happenings(
    journal: Sequence[Any], feed: Sequence[Any], events: Sequence[Any], *, partial: bool = False
) -> list[Happening]:
    """Join what was seen. *partial*: there were older steps, so of older events nobody knows what they led to."""
    seen = {event.id: event for event in sorted(map(_seen, events), key=lambda event: event.at_ms)}
    steps: dict[int, Happening] = {}
    explained: set[str] = set()
    for identity, flat in journal:
        fields = named(flat)
        if fields.get("scopes"):  # not only a notice that a plain value was set
            clock = int(identity.partition(b"-")[0])
            steps[clock] = _step(clock, fields, seen, explained)
    alone: list[Happening] = []
    for _, flat in feed:
        fields = named(flat)
        said = msgspec.json.decode(fields["record"])
        told = Told(fields["topic"].decode(errors="replace"), str(said.get("type", "")))
        of = parse_clock(str(said.get("fresh_after")))
        commit = steps.get(of.number) if of is not None else None
        if commit is None:
            alone.append(Happening(float(said["ts"]), 0, [], [], [told]))
        elif len(commit.told) < SHOWN:
            commit.told.append(told)
        else:
            commit.more_told += 1
    since_ms = min(steps, default=0) / 1000 if partial else 0.0
    rest = [event for event in seen.values() if event.id not in explained and event.at_ms >= since_ms]
    alone += [Happening(event.at_ms, 0, [event], [], []) for event in rest]
    return sorted((*steps.values(), *alone), key=lambda happening: happening.at_ms)


def _step(clock: int, fields: Mapping[str, bytes], seen: Mapping[str, Seen], explained: set[str]) -> Happening:
    """Read one record of the journal; the ids of events it names are added to *explained*."""
    scopes = fields["scopes"].decode(errors="replace").split("\n")
    handlers: dict[str, list[str]] = {}
    others: dict[Actor, None] = {}
    for cause, _ in read_causes(fields.get("cause", b""), scopes):
        if cause.kind != "event":
            others[Actor(*cause)] = None
        elif cause.who not in handlers.setdefault(cause.what, []):
            handlers[cause.what].append(cause.who)
    explained.update(handlers)
    gone = Seen("", "", "", 0, "")
    events = [replace(seen.get(name, gone), id=name, handlers=who) for name, who in handlers.items()]
    oldest_ms = min((event.at_ms for event in events if event.at_ms), default=None)
    return Happening(
        clock / 1000,
        clock,
        events[:SHOWN],
        scopes[:SHOWN],
        [],
        list(others)[:SHOWN],
        more_scopes=len(scopes[SHOWN:]),
        more_events=len(events[SHOWN:]),
        latency_ms=None if oldest_ms is None else max(0.0, clock / 1000 - oldest_ms),
    )


def _seen(record: Any) -> Seen:
    at_ms = int(record[0].partition(b"-")[0])
    try:
        event = read_record(record)
    except InvalidEvent as foreign:
        return Seen("?", "", record[0].decode(), at_ms, f"not an event: {foreign}")
    payload = event.payload[:LONGEST_PAYLOAD].decode(errors="backslashreplace")
    return Seen(event.channel, event.key, event.id or event.position, at_ms, payload)
