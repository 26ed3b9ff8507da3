"""What is wrong with what a fleet did: its applications' notes and the feed, compared. Pure; it trusts nobody.

What is asked of reads is what `benchmarks/faults.py` asks: a process that did not run for a while counts as stopped.
"""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from tests.support.fleet.notes import Accepted, AnyNote, Began, Invalidated, Raised, Read, Stalled

GRACE_S, STOPPED_GRACE_S = 0.25, 2.0
"""A read must not bring what was invalidated so long before; in a process within two seconds of a stop, 2 s."""
MOST_SAID = 5
"""Of one kind."""

Event = tuple[str, int]
"""Key and version."""


class Seen(NamedTuple):
    """A broadcast, and when it was in the feed at the latest: its commit had returned by then."""

    event: Event
    at: float


class Stale(NamedTuple):
    """A read that brought what had been invalidated before it began."""

    application: str
    read: Read
    newest: int
    """What it should have brought, at least."""
    by_s: float
    """How long before it the value that it brought was gone."""

    def __str__(self) -> str:
        """Say all of it."""
        how = "its own invalidation" if self.read.own else f"{self.by_s:.2f} s after"
        connected = "connected" if self.read.connected else "cut off"
        read = self.read
        return (
            f"{self.application}, {connected}, read {read.key} at {read.began:.3f}: {read.version}, not {self.newest},"
            f" {how}"
        )


def check_events(notes: Iterable[AnyNote], feed: Sequence[Seen], late: Iterable[Event] = ()) -> dict[str, list[Event]]:
    """Return what is wrong with the events. Those that are *late* were dead letters, and replayed: not in order."""
    notes, late = list(notes), set(late)
    begun = {(note.key, note.n) for note in notes if isinstance(note, Began) and note.event}
    accepted = [(note.key, note.n) for note in notes if isinstance(note, Accepted)]
    times = Counter(seen.event for seen in feed)
    newest: dict[str, int] = defaultdict(int)
    disordered = []
    for key, n in (event for event in times if event not in late):
        if n < newest[key]:
            disordered.append((key, n))
        newest[key] = max(n, newest[key])
    return {
        "lost": [event for event in accepted if event not in times],
        "twice": [event for event, count in times.items() if count > 1],
        "invented": [event for event in times if event not in begun],
        "out of order": disordered,
    }


def stale_reads(applications: Mapping[str, Sequence[AnyNote]], feed: Sequence[Seen]) -> list[Stale]:
    """Return the reads that brought what was gone, in whichever way it had been invalidated."""
    gone: dict[str, list[tuple[float, int]]] = defaultdict(list)
    for seen in feed:
        gone[seen.event[0]].append((seen.at, seen.event[1]))
    for note in itertools.chain(*applications.values()):
        if isinstance(note, Invalidated):
            gone[note.key].append((note.at, note.n))
    since = {key: _rising(moments) for key, moments in gone.items()}
    found: list[Stale] = []
    for application, notes in applications.items():
        stalls = [note for note in notes if isinstance(note, Stalled)]
        judged = (
            _judge(application, note, stalls, since.get(note.key, [])) for note in notes if isinstance(note, Read)
        )
        found += filter(None, judged)
    return found


def _rising(moments: list[tuple[float, int]]) -> list[tuple[float, int]]:
    """Return from when on which version was the oldest that might be read."""
    newest, rising = 0, []
    for at, n in sorted(moments):
        if n > newest:
            newest = n
            rising.append((at, n))
    return rising


def _judge(application: str, read: Read, stalls: Sequence[Stalled], since: Sequence[tuple[float, int]]) -> Stale | None:
    stopped = any(stall.first <= read.began <= stall.last + STOPPED_GRACE_S for stall in stalls)
    by = read.began - (STOPPED_GRACE_S if stopped else GRACE_S)
    at = bisect_right(since, by, key=lambda moment: moment[0]) - 1
    newest = max(since[at][1] if at >= 0 else 0, read.own)
    if read.version >= newest:
        return None
    gone_at = next((moment for moment, n in since if n > read.version), read.began)
    return Stale(application, read, newest, read.began - gone_at)


def raised(applications: Mapping[str, Sequence[AnyNote]]) -> list[str]:
    """Return what callers saw of the faults: with what the fleet is asked to stand, nothing."""
    notes = ((name, note) for name, each in applications.items() for note in each)
    return [f"{name}: {note.what}" for name, note in notes if isinstance(note, Raised)]
