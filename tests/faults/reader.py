"""One application process of the fault matrix: reads until told to stop, and compares what it got with the truth.

    python -m tests.faults.reader URL NAMESPACE DATABASE SHAPE SEED BREAK

Prints "ready", and at the end one line of JSON: how many reads, how many too old, by how much at worst.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import random
import sys
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from cachebus import Cache, CacheSettings, sync
from cachebus.clock import now_s
from cachebus.freshness.rule import Freshness
from tests.faults.database import KEYS, Database, now_ns

BOUND_S = 0.25
SILENCE_S = 2.0
"""The bound where a process cannot know better: a network that is gone without a word, a stop shorter than this."""
BEAT_S = 0.02
STOP_S = 0.1
"""A process that did not run for so long was stopped by the machine, as by SIGSTOP."""
TRACES = 3
"""Stale reads of which a process keeps a trace."""
TTL = "30s"
PAUSE_S = 0.008

Fetch = Callable[[int], Awaitable[int]]


@dataclasses.dataclass
class Found:
    """What one process saw."""

    reads: int = 0
    after_stops: int = 0
    """Reads within two seconds of a stop that the process could not know of: their bound is two seconds."""
    stale: int = 0
    worst_ms: float = 0.0
    errors: int = 0
    traces: list[str] = dataclasses.field(default_factory=list)
    """Of the first stale reads: when each was, what it returned, and what the process knew."""

    def judge(self, app: Application, key: int, began_ns: int, value: int) -> None:
        """Count one read that began then and returned *value*."""
        self.reads += 1
        stopped = app.stops.lately()
        self.after_stops += stopped
        bound_ns = int((SILENCE_S if stopped else BOUND_S) * 1e9)
        floor, since_ns = app.database.floor(key, began_ns - bound_ns)
        if value >= floor:
            return
        self.stale += 1
        self.worst_ms = max(self.worst_ms, (began_ns - since_ns) / 1e6)
        if len(self.traces) < TRACES:
            ago = f"{(now_ns() - began_ns) / 1e6:.0f} ms ago, {(began_ns - since_ns) / 1e6:.0f} ms too old"
            self.traces.append(
                f"{began_ns / 1e9:.3f} row {key}: {value} for {floor}, {ago}; {app.stops}; {app.knows()}"
            )

    def add(self, other: dict[str, Any]) -> None:
        """Add what another process saw."""
        self.reads += int(other["reads"])
        self.after_stops += int(other["after_stops"])
        self.stale += int(other["stale"])
        self.errors += int(other["errors"])
        self.worst_ms = max(self.worst_ms, other["worst_ms"])
        self.traces += other["traces"]


class Stops:
    """Notices when this process, or the server, did not run for a while: a machine may have more to do than cores."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._began_ns = now_ns()
        self._until_ns = 0
        self._last_s = 0.0
        threading.Thread(target=self._beat, daemon=True).start()

    def __str__(self) -> str:
        return f"stopped for {self._last_s:.2f} s, until {self._until_ns / 1e9 - SILENCE_S:.3f}"

    def lately(self) -> bool:
        """Return whether one stood still within the last two seconds, this process for less than that."""
        self._look()  # this thread may be the first to run again
        return now_ns() < self._until_ns

    def _look(self) -> None:
        late_s = (now_ns() - self._began_ns) / 1e9 - BEAT_S
        if late_s > STOP_S:
            self._last_s = late_s
        silent_s = (now_ns() - self._database.pulse_ns) / 1e9
        if STOP_S < late_s < SILENCE_S + BOUND_S or silent_s > STOP_S:  # a thread that reads may run before the other
            self._until_ns = now_ns() + int(SILENCE_S * 1e9)

    def _beat(self) -> None:
        while True:
            self._began_ns = now_ns()
            pause(BEAT_S)
            self._look()


def pause(seconds: float) -> None:
    """Sleep, but not by `time.sleep`: under libfaketime 0.9.10 that fails, whatever the clock's offset."""
    threading.Event().wait(seconds)


def key_of(n: int) -> str:
    """Return the plain key of a row."""
    return f"plain:{n}:version"


class Application:
    """The shapes in which people read, over one database."""

    def __init__(self, database: Database, draw: random.Random) -> None:
        self.database = database
        self.draw = draw
        self.found = Found()
        self.stops = Stops(database)
        self.stopping = threading.Event()
        self.cache: Cache | None = None

    def knows(self) -> str:
        """Return what this process knows of invalidations now."""
        if self.cache is None or self.cache.reader is None:
            return "no connection"
        freshness = self.cache.reader.freshness
        heard_s = now_s() - freshness.heard_at
        return f"era {freshness.era}, position {freshness.position}, seen {freshness.seen}, heard {heard_s:.3f} s ago"

    async def load(self, n: int) -> int:
        """Read the row, as a database does that is slow now and then."""
        seen = self.database.version(n)
        await asyncio.sleep(self.draw.choice((0, 0.002, 0.01, 0.04)))
        return seen

    def load_sync(self, n: int) -> int:
        """The same, in a thread."""
        seen = self.database.version(n)
        pause(self.draw.choice((0, 0.002, 0.01, 0.04)))
        return seen

    async def look(self, fetch: Fetch) -> None:
        """Read at random until told to stop."""
        while not self.stopping.is_set():
            n, began_ns = self.draw.randrange(KEYS), now_ns()
            try:
                value = await fetch(n)
            except Exception:  # noqa: BLE001 - a fault may raise; what is read must be right
                self.found.errors += 1
            else:
                self.found.judge(self, n, began_ns, value)
            await asyncio.sleep(self.draw.random() * PAUSE_S)

    def look_sync(self, fetch: Callable[[int], int]) -> None:
        """The same, in a thread."""
        while not self.stopping.is_set():
            n, began_ns = self.draw.randrange(KEYS), now_ns()
            try:
                value = fetch(n)
            except Exception:  # noqa: BLE001 - likewise
                self.found.errors += 1
            else:
                self.found.judge(self, n, began_ns, value)
            pause(self.draw.random() * PAUSE_S)

    # -- the shapes -------------------------------------------------------------------------------------------------

    def view(self, cache: Cache) -> list[Fetch]:
        """A decorated function."""

        @cache.view("item:{n}:version", ttl=TTL, stale="10s", tags=["item:{n}"])
        async def item(n: int) -> int:
            return await self.load(n)

        return [item] * 4

    def get_or_load(self, cache: Cache) -> list[Fetch]:
        """A key and a function."""

        async def fetch(n: int) -> int:
            return await cache.get_or_load(key_of(n), lambda: self.load(n), TTL, tags=[f"item:{n}"])

        return [fetch] * 4

    def many(self, cache: Cache) -> list[Fetch]:
        """Several keys at once."""

        async def load_many(keys: list[str]) -> dict[str, int]:
            return {key: await self.load(int(key.split(":")[1])) for key in keys}

        async def fetch(n: int) -> int:
            others = [key_of(self.draw.randrange(KEYS)) for _ in range(3)]
            got = await cache.get_or_load_many([key_of(n), *others], load_many, TTL, tags=["all-items"])
            return got[key_of(n)]

        return [fetch] * 4

    def aside(self, cache: Cache) -> list[Fetch]:  # noqa: C901, PLR0915 - seven ways to write four lines
        """`get`, load, `set`, in the ways people write it in an event loop."""
        background: set[asyncio.Task[object]] = set()

        async def put(n: int, value: int) -> None:
            await cache.set(key_of(n), value, TTL, tags=[f"item:{n}"])

        async def one_task(n: int) -> int:
            value = await cache.get(key_of(n))
            if value is None:
                value = await self.load(n)
                await put(n, value)
            return int(value)

        async def gathered(n: int) -> int:
            (value,) = await asyncio.gather(cache.get(key_of(n)))
            if value is None:
                (value,) = await asyncio.gather(self.load(n))
                await asyncio.gather(put(n, value))
            return int(value)

        async def waited_for(n: int) -> int:
            value = await asyncio.wait_for(cache.get(key_of(n)), 20)
            if value is None:
                value = await asyncio.wait_for(self.load(n), 20)
                await asyncio.wait_for(put(n, value), 20)
            return int(value)

        async def grouped(n: int) -> int:
            async with asyncio.TaskGroup() as group:
                asked = group.create_task(cache.get(key_of(n)))
            value = asked.result()
            if value is None:
                value = await self.load(n)
                async with asyncio.TaskGroup() as group:
                    group.create_task(put(n, value))
            return int(value)

        async def in_background(n: int) -> int:
            value = await cache.get(key_of(n))
            if value is None:
                value = await self.load(n)
                task: asyncio.Task[object] = asyncio.create_task(put(n, value))
                background.add(task)
                task.add_done_callback(background.discard)
            return int(value)

        async def shielded(n: int) -> int:
            value = await asyncio.shield(cache.get(key_of(n)))
            if value is None:
                value = await self.load(n)
                await asyncio.shield(put(n, value))
            return int(value)

        queue: asyncio.Queue[tuple[int, int]] = asyncio.Queue()
        consumers: list[asyncio.Task[None]] = []

        async def put_what_is_queued() -> None:
            while True:
                with contextlib.suppress(Exception):  # a fault: the value is loaded again
                    await put(*await queue.get())

        async def queued(n: int) -> int:
            if not consumers:
                consumers.append(asyncio.create_task(put_what_is_queued()))
            value = await cache.get(key_of(n))
            if value is None:
                value = await self.load(n)
                queue.put_nowait((n, value))
            return int(value)

        return [one_task, gathered, waited_for, grouped, in_background, shielded, queued]

    def threads(self, cache: sync.Cache) -> list[Callable[[int], int]]:
        """A view and `get`, load, `set`, from threads."""

        @cache.view("item:{n}:version", ttl=TTL, tags=["item:{n}"])
        def item(n: int) -> int:
            return self.load_sync(n)

        def aside(n: int) -> int:
            value = cache.get(key_of(n))
            if value is None:
                value = self.load_sync(n)
                cache.set(key_of(n), value, TTL, tags=[f"item:{n}"])
            return int(value)

        return [item, item, aside, aside]


def break_the_rule(which: str) -> None:
    """Take out the mend that a fault needs, to see that the matrix finds it missing."""
    if which == "heard":
        Freshness.hears = lambda _self, _now: True  # type: ignore[method-assign] # the point of it
    if which == "born":
        Freshness.latest = lambda _self, _scopes: 0  # type: ignore[method-assign] # likewise


def settings(url: str, store_url: str | None, namespace: str, broken: str) -> CacheSettings:
    """Return the settings of every process: nothing is served from memory while Redis is unavailable."""
    given: dict[str, Any] = {"url": url, "store_url": store_url, "namespace": namespace}
    return CacheSettings(**given, max_staleness_ms=0, trust_restarts=broken == "era")


async def in_a_loop(app: Application, shape: str, chosen: CacheSettings) -> None:
    """Read in an event loop."""
    async with Cache(settings=chosen) as cache:
        app.cache = cache
        fetches = getattr(app, shape)(cache)
        say("ready")
        await asyncio.gather(*[app.look(fetch) for fetch in fetches])


def in_threads(app: Application, chosen: CacheSettings) -> None:
    """Read in threads."""
    with contextlib.closing(sync.Cache(Cache(settings=chosen))) as cache:
        fetches = app.threads(cache)
        say("ready")
        looking = [threading.Thread(target=app.look_sync, args=(fetch,)) for fetch in fetches]
        for thread in looking:
            thread.start()
        for thread in looking:
            thread.join()


def forked(app: Application, chosen: CacheSettings) -> None:
    """Use the cache, fork, and read in the children, as gunicorn's workers do."""
    cache = sync.Cache(Cache(settings=chosen))
    cache.get("before the fork")
    readers = []
    for _ in range(2):
        reader, writer = os.pipe()
        if os.fork() == 0:
            app.stops = Stops(app.database)
            fetches = app.threads(cache)
            looking = [threading.Thread(target=app.look_sync, args=(fetch,)) for fetch in fetches]
            for thread in looking:
                thread.start()
            threading.Thread(target=_stop_with_parent, args=(app,), daemon=True).start()
            for thread in looking:
                thread.join()
            os.write(writer, json.dumps(dataclasses.asdict(app.found)).encode())
            os._exit(0)
        os.close(writer)
        readers.append(reader)
    say("ready")
    app.stopping.wait()
    for reader in readers:
        with open(reader, "rb") as said:  # noqa: PTH123 - a file descriptor
            app.found.add(json.loads(said.read()))
    cache.close()


STOP = Path("/nonexistent")


def _stop_with_parent(app: Application) -> None:
    while not STOP.exists():
        pause(0.02)
    app.stopping.set()


def say(line: str) -> None:
    """Tell the matrix."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main(arguments: list[str]) -> None:
    """Read until the file beside the database says stop."""
    url, namespace, path, shape, seed, broken = arguments
    global STOP  # noqa: PLW0603 - children of a fork look at it too
    STOP = Path(path).with_suffix(".stop")
    break_the_rule(broken)
    app = Application(Database(Path(path)), random.Random(seed))  # noqa: S311 - a run that can be had again
    threading.Thread(target=_stop_with_parent, args=(app,), daemon=True).start()
    chosen = settings(url, os.environ.get("STORE_REDIS_URL"), namespace, broken)
    if shape == "threads":
        in_threads(app, chosen)
    elif shape == "forked":
        forked(app, chosen)
    else:
        asyncio.run(in_a_loop(app, shape, chosen))
    say(json.dumps(dataclasses.asdict(app.found)))


if __name__ == "__main__":
    main(sys.argv[1:])
