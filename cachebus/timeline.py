"""What happens in a deployment, for people who watch: events, what they made invalid, whom that was told to.

Nothing is written for it and nobody pays while nobody looks. A look is one script, so that a commit is seen whole: what
was handled, invalidated and broadcast together is shown together. Where several commits fall between two looks, an
event belongs to the first invalidation after it; commits that follow several events so closely that any may be theirs
are shown together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from cachebus.events import InvalidEvent, read_record
from cachebus.link import Link

MOST = 60
"""Records of each kind in one look; what is older is left out, and that is said."""
SHOWN = 12
"""Scopes, topics and events named in one happening; of the rest there is a number."""
LONGEST_PAYLOAD = 400
CLOSE_US = 50_000
"""Commits this close to each other may have shared out the events before them in any way."""
TIMEOUT_S = 2.0


class Seen(msgspec.Struct, frozen=True):
    """One event that was handled."""

    channel: str
    key: str
    id: str
    at_ms: int
    payload: str


class Told(msgspec.Struct, frozen=True):
    """One broadcast."""

    topic: str
    type: str


class Happening(msgspec.Struct):
    """A commit: events, and what they led to. Without events: somebody invalidated directly."""

    at_ms: float
    clock: int
    """The invalidation's, microseconds; 0 where nothing was invalidated."""
    events: list[Seen]
    scopes: list[str]
    told: list[Told]
    more_scopes: int = 0
    more_told: int = 0
    more_events: int = 0
    latency_ms: float | None = None
    """From the publication of the oldest of these events until nobody reads older values."""


class Timeline:
    """Looks at a deployment again and again. One for all who watch from a process."""

    def __init__(self, link: Link, *, shards: int = 1) -> None:
        self._link = link
        names = link.names
        pairs = ((names.bus("events", str(number)), names.bus("shard", str(number))) for number in range(shards))
        self._keys = [names.journal, names.feed, *(key for pair in pairs for key in pair)]
        self._last = ["-"] * (2 + shards)

    async def look(self) -> list[Happening]:
        """Return what happened since the last look, oldest first; at first, the last few. Raises: ServerError."""
        reply = await self._link.store.run("look_at_timeline", self._keys, (MOST, *self._last), timeout_s=TIMEOUT_S)
        journal, feed, *shards = reply
        for at, records in enumerate((journal, feed)):
            if records:
                self._last[at] = records[0][0].decode()
        for at, (position, _) in enumerate(shards, start=2):
            self._last[at] = position.decode()
        events = [record for _, records in shards for record in reversed(records)]
        return _happenings(journal[::-1], feed[::-1], events)


def _happenings(journal: Sequence[Any], feed: Sequence[Any], events: Sequence[Any]) -> list[Happening]:
    found: dict[int, Happening] = {}
    for identity, flat in journal:
        clock = int(identity.partition(b"-")[0])
        text = _fields(flat)["scopes"].decode(errors="replace")
        scopes = text.split("\n") if text else []
        found[clock] = Happening(clock / 1000, clock, [], scopes[:SHOWN], [], more_scopes=max(0, len(scopes) - SHOWN))
    alone: list[Happening] = []
    for _, flat in feed:
        fields = _fields(flat)
        said = msgspec.json.decode(fields["record"])
        told = Told(fields["topic"].decode(errors="replace"), str(said.get("type", "")))
        commit = found.get(int(said.get("fresh_after") or 0))
        if commit is None:
            alone.append(Happening(float(said["ts"]), 0, [], [], [told]))
        elif len(commit.told) < SHOWN:
            commit.told.append(told)
        else:
            commit.more_told += 1
    clocks = sorted(found)
    for event in sorted(map(_seen, events), key=lambda event: event.at_ms):
        clock = next((clock for clock in clocks if clock >= event.at_ms * 1000), 0)
        if not clock:
            alone.append(Happening(event.at_ms, 0, [event], [], []))
            continue
        commit = found[clock]
        commit.latency_ms = max(commit.latency_ms or 0.0, clock / 1000 - event.at_ms)
        if len(commit.events) < SHOWN:
            commit.events.append(event)
        else:
            commit.more_events += 1
    return sorted((*_merged([found[clock] for clock in clocks]), *alone), key=lambda happening: happening.at_ms)


def _merged(commits: list[Happening]) -> list[Happening]:
    """Show as one what cannot be told apart: several events, and commits so close behind that any may be theirs."""
    kept: list[Happening] = []
    for commit in commits:
        before = kept[-1] if kept else None
        if before is None or len(before.events) + before.more_events < 2 or commit.clock - before.clock > CLOSE_US:
            kept.append(commit)
            continue
        events = [*before.events, *commit.events]
        scopes = list(dict.fromkeys([*before.scopes, *commit.scopes]))
        told = [*before.told, *commit.told]
        late_ms = commit.clock / 1000 - before.events[0].at_ms
        kept[-1] = Happening(
            before.at_ms,
            commit.clock,
            events[:SHOWN],
            scopes[:SHOWN],
            told[:SHOWN],
            more_scopes=before.more_scopes + commit.more_scopes + len(scopes[SHOWN:]),
            more_told=before.more_told + commit.more_told + len(told[SHOWN:]),
            more_events=before.more_events + commit.more_events + len(events[SHOWN:]),
            latency_ms=late_ms if late_ms <= CLOSE_US / 1000 else None,  # beyond that nobody can say whose it is
        )
    return kept


def _seen(record: Any) -> Seen:
    at_ms = int(record[0].partition(b"-")[0])
    try:
        event = read_record(record)
    except InvalidEvent as foreign:
        return Seen("?", "", record[0].decode(), at_ms, f"not an event: {foreign}")
    payload = event.payload[:LONGEST_PAYLOAD].decode(errors="backslashreplace")
    return Seen(event.channel, event.key, event.id, at_ms, payload)


def _fields(flat: Sequence[bytes]) -> dict[str, bytes]:
    return {name.decode(): value for name, value in zip(flat[::2], flat[1::2], strict=True)}
