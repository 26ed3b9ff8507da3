"""Recordings of traffic that is made up: what the processes of a deployment would have sent. Seeded; no server.

`python -m benchmarks.recorded trading FILE --users 400 --minutes 60` writes one that `cachebus analyze --from FILE` and
`cachebus replay FILE` read. `planted` has three mistakes in it, and nothing else that is worth a sentence;
`benchmarks/planted.rec` is ten minutes of it.
"""

from __future__ import annotations

import argparse
import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from benchmarks.traffic_model import SOURCES, ModelRead, ModelView, Shape
from cachebus.cache.foresight.recording import (
    UNKNOWN,
    Chunk,
    Counters,
    Hasher,
    InvalidationRow,
    LoadRow,
    ReadRow,
    RecordedKey,
    RecordedView,
    Recording,
    Wanted,
    encode_chunk,
    packed,
    to_file,
)
from cachebus.freshness.scopes import scopes_of

SECRET = "5eed" * 8
ENTRIES = 1000


class Read(NamedTuple):
    """A read by somebody in one process; `warm`: a schedule asks for it."""

    at_s: float
    process: int
    view: str
    key: str
    identity: str
    tags: tuple[str, ...]
    warm: bool = False


class Change(NamedTuple):
    """Tags are invalidated. `real`: the values below them change, too."""

    at_s: float
    tags: tuple[str, ...]
    real: bool = True


class _Process:
    """What one process records."""

    def __init__(self, views: tuple[RecordedView, ...]) -> None:
        self.views = views
        self.met: set[str] = set()
        self.keys: dict[int, RecordedKey] = {}
        self.reads: list[ReadRow] = []
        self.loads: list[LoadRow] = []
        self.counted: dict[str, Counter[str]] = defaultdict(Counter)


class Deployment:
    """Processes with one Redis and no memory: memory changes nothing of what is read, nor of what is loaded."""

    def __init__(
        self, views: Mapping[str, ModelView], *, processes: int, rate: float, entries: int, seconds: float
    ) -> None:
        self._views = views
        self._entries = entries
        self._wanted = Wanted(
            id="model", secret=SECRET, rate=rate, from_us=0, until_us=int(seconds * 1e6), asked_by="a model"
        )
        self._hasher = Hasher(self._wanted)
        recorded = tuple(RecordedView(view.name, int(view.ttl_s * 1000), 0, view.tags) for view in views.values())
        self._places = {view.name: place for place, view in enumerate(recorded)}
        self._processes = [_Process(recorded) for _ in range(processes)]
        self._redis: dict[str, tuple[float, float]] = {}
        """By key: since when, and until when."""
        self._ended: dict[str, float] = {}
        """By tag: when it was last invalidated."""
        self._version = Counter[str]()
        self._invalidations: list[InvalidationRow] = []
        self._tags = Counter[str]()
        self._draw = random.Random(1)  # noqa: S311 - the same recording every time

    def run(self, traffic: Iterable[Read | Change]) -> Recording:
        """Return what the processes send."""
        for event in traffic:
            if isinstance(event, Change):
                self._change(event)
            else:
                self._read(event)
        return Recording(self._wanted, [encode_chunk(chunk) for chunk in self._chunks()])

    def _change(self, change: Change) -> None:
        for tag in change.tags:
            self._ended[tag] = change.at_s
            self._version[tag] += change.real
            at_ms = int(change.at_s * 1000)
            self._invalidations.append(InvalidationRow(at_ms, self._hasher.hash(f"t:{tag}".encode()), at_ms))
            self._tags[self._template(tag)] += 1

    def _read(self, read: Read) -> None:
        process, view, at_ms = self._processes[read.process], self._views[read.view], int(read.at_s * 1000)
        since, until = self._redis.get(read.key, (-1.0, -1.0))
        is_there = read.at_s < until and all(self._ended.get(tag, -1.0) < since for tag in read.tags)
        key = self._hasher.key_of(read.key)
        process.met.add(read.key)
        counted = process.counted[read.view]
        if key and key not in process.keys:
            process.keys[key] = self._described(key, read)
        if not read.warm:
            counted["reads"] += 1
            counted["redis" if is_there else "missed"] += 1
            if key:
                process.reads.append(ReadRow(at_ms, key, 1, int(not is_there)))
        if is_there:
            return
        load_ms = view.load_time_ms(self._draw)
        counted["loads"] += 1
        counted["load_us"] += round(load_ms * 1000)
        self._redis[read.key] = (read.at_s, read.at_s + view.ttl_s)
        if key:
            value = self._hasher.hash(repr((read.key, [self._version[tag] for tag in read.tags])).encode())
            row = LoadRow(at_ms + round(load_ms), key, round(load_ms * 1000), view.size, value, 2 * read.warm)
            process.loads.append(row)

    def _described(self, key: int, read: Read) -> RecordedKey:
        declared = self._views[read.view].tags
        scopes = tuple(
            (
                self._hasher.hash(scope.encode()),
                declared.index(self._template(scope[2:])) if scope[0] == "t" else UNKNOWN,
            )
            for scope in scopes_of(read.key, read.tags)
        )
        who = self._hasher.hash(read.identity.encode(), 24) if read.identity else 0
        return RecordedKey(key, self._places[read.view], who, scopes)

    def _template(self, tag: str) -> str:
        """Return the declared tag that *tag* is made by."""
        return next(
            declared
            for view in self._views.values()
            for declared in view.tags
            if re.fullmatch(re.sub(r"\\{\w+\\}", "[^:]+", re.escape(declared)), tag)
        )

    def _chunks(self) -> Iterator[Chunk]:
        for number, process in enumerate(self._processes):
            yield Chunk(
                process=f"model.{number}",
                base_us=0,
                until_ms=self._wanted.until_us // 1000,
                entries_most=self._entries,
                views=process.views,
                counted={
                    name: Counters(c["reads"], 0, c["redis"], 0, c["missed"], c["loads"], c["load_us"] // 1000)
                    for name, c in process.counted.items()
                },
                tags=dict(self._tags) if number == 0 else {},
                lost=0,
                met=len(process.met),
                keys=tuple(process.keys.values()),
                held=b"",
                hits=b"",
                reads=packed(process.reads),
                loads=packed(process.loads),
                invalidations=packed(self._invalidations),
            )


def modelled(source: str, *, users: int, seconds: float, begin_s: float, processes: int) -> Iterator[Read | Change]:
    """Yield a part of a model's traffic; each user's reads go to any process."""
    traffic, views = SOURCES[source]
    draw = random.Random(2)  # noqa: S311 - the same traffic every time
    for record in traffic(Shape(users=users, days=1)):
        at_s = record.at - begin_s
        if at_s >= seconds:
            return
        if at_s < 0:
            continue
        if isinstance(record, ModelRead):
            view = views[record.view]
            who = str(record.user) if view.identity else ""
            yield Read(
                at_s, draw.randrange(processes), view.name, view.key(record.args), who, view.tags_of(record.args)
            )
        else:
            yield Change(at_s, record.tags)


def zipf(*, keys: int, reads: int, seconds: float, exponent: float, processes: int = 1) -> Iterator[Read]:
    """Yield reads of one view whose keys are asked for by Zipf's law."""
    draw = random.Random(3)  # noqa: S311 - the same traffic every time
    weights = [1 / rank**exponent for rank in range(1, keys + 1)]
    for number, key in enumerate(draw.choices(range(keys), weights, k=reads)):
        yield Read(number * seconds / reads, draw.randrange(processes), "item:{id}", f"item:{key}", "", ())


ITEM = {"item:{id}": ModelView("item:{id}", 3600, 20, 500, (), None)}

PLANTED = {
    view.name: view
    for view in (
        ModelView("thread:{thread}", 300, 120, 2_000, ("forum:{forum}",), None),
        ModelView("digest:{user_id}", 60, 200, 4_000),
        ModelView("quote:{symbol}", 5, 40, 300, ("symbol:{symbol}",), None),
        ModelView("profile:{user_id}", 300, 30, 500, ("user:{user_id}",)),
    )
}
"""A tag that reaches too far, a view that is warmed for nobody, a TTL that is too short, and one without fault."""


def planted(seconds: float, processes: int = 3) -> Iterator[Read | Change]:
    """Yield the traffic of `PLANTED`."""
    draw = random.Random(4)  # noqa: S311 - the same traffic every time
    place = random.Random(5)  # noqa: S311 - and however many processes there are
    events: list[Read | Change] = []
    for at_s in range(int(seconds)):
        for _ in range(6):
            forum, thread = draw.randrange(5), draw.randrange(60)
            name = f"thread:{forum * 100 + thread}"
            tags = (f"forum:{forum}",)
            events.append(Read(at_s + draw.random(), place.randrange(processes), "thread:{thread}", name, "", tags))
        for _ in range(6):
            symbol = f"S{int(draw.paretovariate(0.9)) % 80}"
            tags = (f"symbol:{symbol}",)
            name = f"quote:{symbol}"
            events.append(Read(at_s + draw.random(), place.randrange(processes), "quote:{symbol}", name, "", tags))
        for _ in range(4):
            user = str(int(draw.paretovariate(1.0)) % 300)
            name, tags = f"profile:{user}", (f"user:{user}",)
            events.append(Read(at_s + draw.random(), place.randrange(processes), "profile:{user_id}", name, user, tags))
        if at_s % 60 == 0:
            events += [
                Read(at_s + number / 100, 0, "digest:{user_id}", f"digest:{number}", str(number), (), warm=True)
                for number in range(40)
            ]
        if at_s % 4 == 0:
            events.append(Change(at_s + draw.random(), (f"forum:{draw.randrange(5)}",), real=draw.random() < 0.05))
        if at_s % 20 == 0:
            events.append(Change(at_s + draw.random(), (f"user:{draw.randrange(300)}",)))
        if at_s % 30 == 0:
            events.append(Change(at_s + draw.random(), (f"symbol:S{draw.randrange(80)}",)))
    yield from sorted(events, key=lambda event: event.at_s)


def main(arguments: list[str] | None = None) -> None:
    """Write a recording."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recorded", description=__doc__)
    parser.add_argument("source", choices=[*SOURCES, "planted"])
    parser.add_argument("file", type=Path)
    parser.add_argument("--users", type=int, default=400)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--begin", type=float, default=9.0, help="hour of the day, of trading and shop")
    parser.add_argument("--processes", type=int, default=3)
    parser.add_argument("--rate", type=float, default=1.0)
    given = parser.parse_args(arguments)
    seconds = given.minutes * 60
    views = PLANTED if given.source == "planted" else SOURCES[given.source][1]
    traffic = (
        planted(seconds, given.processes)
        if given.source == "planted"
        else modelled(
            given.source,
            users=given.users,
            seconds=seconds,
            begin_s=given.begin * 3600,
            processes=given.processes,
        )
    )
    deployment = Deployment(views, processes=given.processes, rate=given.rate, entries=ENTRIES, seconds=seconds)
    given.file.write_bytes(to_file(deployment.run(traffic)))


if __name__ == "__main__":
    main()
