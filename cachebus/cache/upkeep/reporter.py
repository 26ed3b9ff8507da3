"""What this process counts, added to the history of all processes every ten seconds.

A minute is one hash and lasts two hours, an hour is one hash and lasts eight days and two hours. Fields are
`view|counter`: templates of views, never keys, so a bucket has some hundred fields however many users there are.
`cachebus.monitoring.history` reads it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from bisect import bisect_left
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import asdict
from importlib import import_module
from typing import NamedTuple, Protocol

import msgspec

from cachebus.cache.stats import CacheStats, ViewStats
from cachebus.cache.upkeep.answers import MOST_ASKED, answer, asked_key
from cachebus.cache.upkeep.lives import TAGGED
from cachebus.cache.upkeep.reach import Reach, Tagged, Under
from cachebus.errors import ServerError
from cachebus.freshness.cause import Cause, current_cause
from cachebus.redis.client import Client
from cachebus.redis.connection import Argument

log = logging.getLogger("cachebus")

FLUSH_S = 10.0
MINUTE_TTL_S = 2 * 3600
HOURS_KEPT = 8 * 24
HOUR_TTL_S = (HOURS_KEPT + 2) * 3600
PROCESSES_TTL_S = 3600
PAIRS_AT_ONCE, CAUSES_AT_ONCE = 400, 40
"""Counters and causes in one call: a script takes at most 1,000 arguments."""
MOST_CAUSES = 200
"""Names of causes that one process tells apart; more are counted by their kind alone."""
CAUSES_TTL_S = 26 * 3600
PLATFORM_NAMES = ("DYNO", "RAILWAY_REPLICA_ID", "RENDER_INSTANCE_ID", "FLY_MACHINE_ID")
"""How Heroku, Railway, Render and Fly call one running copy."""
RELEASE_NAMES = ("RELEASE", "RAILWAY_GIT_COMMIT_SHA", "HEROKU_SLUG_COMMIT", "HEROKU_BUILD_COMMIT", "RENDER_GIT_COMMIT")
"""Where the name of a release is: ours, and how Railway, Heroku and Render call its commit."""
ENVIRONMENT_NAMES = ("ENVIRONMENT", "RAILWAY_ENVIRONMENT_NAME")
"""Where the name of an environment is, such as production: ours, and Railway's."""
LONGEST_RELEASE = 40
RELEASES_KEPT = 20
RELEASES_TTL_S = 30 * 86_400
BOUNDS_MS = (1, 2, 3, 4, 5, 7, 10, 15, 20, 30, 50, 70, 100, 150, 200, 300, 500, 700, 1000, 1500, 2000, 5000, 10_000)
"""Upper bounds of what is counted as a latency; beyond the last it is "more"."""
BY = "invalidated by "
"""Before the kind of cause, in the names of the counters of invalidations by cause."""
LATENCY = "(events)"
"""The place of latencies among the views: no template begins with a bracket."""


def is_view(name: str) -> bool:
    """Return whether counters under *name* are those of a view, or of plain keys."""
    return name != LATENCY and not name.startswith(TAGGED)


class Counted(Tagged, Protocol):
    """What is asked of a view."""

    stats: ViewStats


class NamedCause(NamedTuple):
    """Why something was invalidated, by name, without what is each time another one: the id of an event."""

    kind: str
    who: str = ""
    """'' for all whose names found no room."""
    what: str = ""


class Observed:
    """What a process tells of itself beside its cache: gauges that are asked for, latencies that are brought."""

    def __init__(self, views: Mapping[str, Counted] | None = None) -> None:
        """*views*: of this process, which count their own invalidations."""
        self.gauges: dict[str, Callable[[], float]] = {}
        """Such as `sockets`: how many are open now."""
        self.latencies: Counter[str] = Counter()
        self.latency_ms = 0.0
        """The sum of them all."""
        self.lives = Counter[tuple[str, str]]()
        """What became of loaded values (`lives`)."""
        self._invalidated: dict[NamedCause, Counter[Under]] = {}
        """By cause and by what they are of: scopes invalidated from this process."""
        self._views = views if views is not None else {}
        self.reach = Reach(self._views)
        self._process = Cause("process", process_name())

    def committed(self, latency_ms: float, events: int, scopes: Mapping[str, str]) -> None:
        """Count one commit of a consumer: its events, how long they took, and what they made unreadable, by handler."""
        self.fresh(latency_ms, events)
        of = self.reach.of
        for scope, handler in scopes.items():
            self._of_cause(NamedCause("event", handler))[of(scope)] += 1

    def invalidated(self, scopes: Iterable[str]) -> None:
        """Count what was made unreadable, for the current cause (`freshness.cause`)."""
        cause = current_cause() or self._process
        counter = self._of_cause(NamedCause(cause.kind, cause.who, "" if cause.kind == "event" else cause.what))
        of = self.reach.of
        for scope in scopes:
            counter[of(scope)] += 1

    def _of_cause(self, cause: NamedCause) -> Counter[Under]:
        counter = self._invalidated.get(cause)
        if counter is None:
            cause = cause if len(self._invalidated) < MOST_CAUSES else NamedCause(cause.kind)
            counter = self._invalidated.setdefault(cause, Counter())
        return counter

    def invalidations(self) -> Counter[tuple[str, str]]:
        """Return by view and kind of cause how many scopes were invalidated under which it may have values.

        Also of views that only other processes declare. What views count themselves is brought up to date.
        """
        counted = Counter[tuple[str, str]]()
        for (view, cause), number in self.causes().items():
            counted[view, cause.kind] += number
        own = Counter[str]()
        for (view, _), number in counted.items():
            own[view] += number
        for view in own.keys() & self._views.keys():
            self._views[view].stats.invalidations = own[view]
        return counted

    def causes(self) -> Counter[tuple[str, NamedCause]]:
        """Return by view and cause the same."""
        counted = Counter[tuple[str, NamedCause]]()
        for cause, by_place in self._invalidated.items():
            for under, number in by_place.items():
                for view in under.views:
                    counted[view, cause] += number
        return counted

    def tags_invalidated(self) -> Counter[str]:
        """Return by template of a tag how many such tags were invalidated from this process."""
        counted = Counter[str]()
        for by_place in self._invalidated.values():
            for under, number in by_place.items():
                for tag in under.tags:
                    counted[tag] += number
        return counted

    def fresh(self, latency_ms: float, events: int = 1) -> None:
        """Count events that took so long from their publication until no process reads older values any more."""
        if not events:
            return
        self.latency_ms += latency_ms * events
        at = bisect_left(BOUNDS_MS, latency_ms)
        self.latencies[str(BOUNDS_MS[at]) if at < len(BOUNDS_MS) else "more"] += events


class ProcessReport(msgspec.Struct, frozen=True):
    """What a process last said of itself."""

    name: str
    at_us: int
    """The server's time."""
    entries: int
    bytes: int
    evictions: int
    journal_lag_ms: float | None
    gaps: int
    queued: int
    gauges: dict[str, float]
    ttls_ms: dict[str, int]
    """The TTL of each view it declares."""
    refused: str = ""
    """Why Redis refuses its reads, although it answers; '' while it serves them."""
    release: str = ""
    """What is deployed there; '' where nothing says so."""
    version: str = ""
    """Of this library."""


def release_of(environment: Mapping[str, str] = os.environ) -> str:
    """Return what is deployed here: `RELEASE`, or the commit that the platform names; '' where nothing says so."""
    return first_of(RELEASE_NAMES, environment)[1][:LONGEST_RELEASE]


def first_of(names: Iterable[str], environment: Mapping[str, str] = os.environ) -> tuple[str, str]:
    """Return the first of some variables that is set, and its value; two '' where none is."""
    return next(((name, environment[name].strip()) for name in names if environment.get(name, "").strip()), ("", ""))


def names_of_process(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the fields by which a log line is found: process, and release where one is known."""
    release = release_of(environment)
    return {"process": process_name(environment), **({"release": release} if release else {})}


def process_name(environment: Mapping[str, str] = os.environ) -> str:
    """Return a name for this process that a person finds again on the platform."""
    place = next((environment[name] for name in PLATFORM_NAMES if environment.get(name)), None)
    return f"{place or socket.gethostname()}.{os.getpid()}"


def causes_key(client: Client, hour: int) -> str:
    """Return the name of the hash of causes of an hour, by its start in seconds since 1970."""
    return client.names.bus("causes", str(hour))


def releases_key(client: Client) -> str:
    """Return the name of the sorted set of releases by when each was first seen."""
    return client.names.bus("releases")


class Reporter:
    """Says every ten seconds what this process counted. One command for some thirty busy views.

    What is under way when the connection breaks is not sent again: better a gap of ten seconds than counting twice.
    """

    def __init__(
        self,
        client: Client,
        stats: Callable[[], CacheStats],
        observed: Observed,
        *,
        ttls_ms: Callable[[], dict[str, int]] = dict,
        name: str | None = None,
        follow: Callable[[bytes | None], Awaitable[None]] | None = None,
    ) -> None:
        """*follow* is told after each report what somebody wants to be recorded, as it lies in Redis."""
        self._client = client
        self._stats = stats
        self._observed = observed
        self._ttls_ms = ttls_ms
        self._name = name or process_name()
        self._sent = self._counted()
        """What is counted in Redis already; what was before, another loop of this process has reported."""
        self._caused = self._observed.causes()
        self._told = False
        self._follow = follow
        self._release = release_of()

    async def run(self) -> None:
        """Report until cancelled, and once more then."""
        try:
            while True:
                await asyncio.sleep(FLUSH_S)
                await self.flush()
        finally:
            if self._client.store.up:
                await self.flush(last=True)

    async def flush(self, *, last: bool = False) -> bool:
        """Add what is new; returns whether it was. A process where nothing ever happened says nothing."""
        if not self._client.store.up:
            return False
        counted = self._counted()
        new = [(name, count - self._sent[name]) for name, count in counted.items() if count > self._sent[name]]
        if not new and (last or not (self._told or self._observed.gauges or counted)):
            return await self._leave() if self._told else False
        self._sent = counted
        causes = self._observed.causes()
        caused = [(each, count - self._caused[each]) for each, count in causes.items() if count > self._caused[each]]
        self._caused = causes
        try:
            if self._release and not self._told:
                await self._mark()
            wanted: bytes | None = None
            questions: list[bytes] = []
            for part in range(max(1, -(-len(new) // PAIRS_AT_ONCE), -(-len(caused) // CAUSES_AT_ONCE))):
                wanted, questions = await self._note(
                    new[part * PAIRS_AT_ONCE :][:PAIRS_AT_ONCE], caused[part * CAUSES_AT_ONCE :][:CAUSES_AT_ONCE]
                )
            self._told = True
            await answer(self._client, self._name, questions)
            if self._follow is not None:
                await self._follow(wanted)
            return await self._leave() if last else True
        except ServerError as away:
            log.debug("history: %s", away)
            return False

    async def _note(
        self, pairs: list[tuple[str, int]], caused: list[tuple[tuple[str, NamedCause], int]]
    ) -> tuple[bytes | None, list[bytes]]:
        names, now_us = self._client.names, self._client.now_us()
        second = now_us // 1_000_000
        keys = (
            names.bus("history", "minute", str(second - second % 60)),
            names.bus("history", "hour", str(second - second % 3600)),
            names.bus("processes"),
            names.bus("recording"),
            asked_key(self._client),
            causes_key(self._client, second - second % 3600),
        )
        stats = self._stats()
        report = ProcessReport(
            self._name,
            now_us,
            stats.entries,
            stats.bytes,
            stats.evictions,
            stats.journal_lag_ms,
            stats.gaps,
            stats.queued,
            {name: gauge() for name, gauge in self._observed.gauges.items()},
            self._ttls_ms(),
            stats.refused,
            self._release,
            import_module("cachebus").__version__,
        )
        args: list[Argument] = [MINUTE_TTL_S, HOUR_TTL_S, PROCESSES_TTL_S, self._name, msgspec.json.encode(report)]
        args += (MOST_ASKED, CAUSES_TTL_S, now_us, len(caused))
        for (view, cause), number in caused:
            args += (msgspec.json.encode((view, *cause)), number)
        for name, number in pairs:
            args += (name, number)
        wanted, questions = await self._client.store.run("cache/upkeep/note_history", keys, args)
        return wanted, questions

    async def _mark(self) -> None:
        """Note when this release was first seen. Three commands, once in the life of a process."""
        name, call = releases_key(self._client), self._client.store.call
        await call("ZADD", name, "NX", self._client.now_us(), self._release)
        await call("ZREMRANGEBYRANK", name, 0, -RELEASES_KEPT - 1)
        await call("EXPIRE", name, RELEASES_TTL_S)

    async def _leave(self) -> bool:
        try:
            await self._client.store.call("HDEL", self._client.names.bus("processes"), self._name)
        except ServerError as away:
            log.debug("history: not signed off: %s", away)
        return True

    def _counted(self) -> Counter[str]:
        """Return every counter of this process as a whole number."""
        counted = Counter({f"{LATENCY}|{bound}": count for bound, count in self._observed.latencies.items()})
        for view, stats in self._stats().views.items():
            for name, count in asdict(stats).items():
                if count and name != "invalidations":
                    counted[f"{view}|{name}"] = round(count)
        for (view, kind), count in self._observed.invalidations().items():
            counted[f"{view}|invalidations"] += count
            counted[f"{view}|{BY}{kind}"] += count
        for tag, count in self._observed.tags_invalidated().items():
            counted[f"{TAGGED}{tag}|invalidations"] += count
        for (view, name), count in self._observed.lives.items():
            if count:
                counted[f"{view}|{name}"] += count
        return counted
