"""The table is trusted only while the journal is heard: from the sending of a question, on a connection that lives."""

from __future__ import annotations

import asyncio
import random
import signal
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest

from cachebus import Cache
from cachebus.clock import now_s
from cachebus.freshness import journal
from cachebus.freshness.journal import Journal
from cachebus.freshness.ledger import Ledger, Question
from cachebus.freshness.rule import TRUST_S, Verdict
from cachebus.testing import FaultProxy
from cachebus.testing.server import PrivateServer
from tests.conftest import Connect
from tests.support.waiting import caught_up, until

LATE_S = 0.25
"""What a process that follows the journal may lag behind an invalidation that has returned."""
STOPPED_S = 3.0
ROUND_TRIP_S = 0.04
BEAT_S = 0.005


class Versions:
    """What was invalidated, and when that returned; tells how many reads were older than they may be."""

    def __init__(self) -> None:
        self.returned: list[tuple[float, int]] = []
        self.reads: list[tuple[float, int]] = []
        """When each began, and what it returned."""

    def stale(self) -> list[tuple[float, int]]:
        """Return the reads that are older than an invalidation which had returned LATE_S before."""
        return [
            (began, value)
            for began, value in self.reads
            if value < max((version for at, version in self.returned if at < began - LATE_S), default=0)
        ]


class Work:
    """The time in which this event loop was at work. What a busy machine took from it is nobody's lateness."""

    def __init__(self) -> None:
        self.seconds = 0.0

    async def measure(self) -> None:
        """Count until cancelled."""
        while True:
            began = time.monotonic()
            await asyncio.sleep(BEAT_S)
            self.seconds += min(time.monotonic() - began, 2 * BEAT_S)


async def test_a_journal_that_is_cut_under_load_makes_nothing_old(
    connect: Connect, proxy: FaultProxy, server: PrivateServer
) -> None:
    """Its connection is killed again and again, and for a second no new one is to be had: reads ask meanwhile."""
    writer, reader = await connect(), await connect(url=proxy.url)
    versions, version, over, work = Versions(), 0, False, Work()

    async def load(n: int) -> int:
        return version

    view = reader.view("cut:{n}", ttl="1h")(load)

    async def write() -> None:
        nonlocal version
        while not over:
            version += 1
            now = version
            await writer.invalidate(keys=["cut:1"])
            versions.returned.append((work.seconds, now))
            await asyncio.sleep(0.01)

    async def read() -> None:
        while not over:
            began = work.seconds
            versions.reads.append((began, await view(1)))
            await asyncio.sleep(0.001)

    measuring = asyncio.create_task(work.measure())
    tasks = [asyncio.create_task(write()), asyncio.create_task(read())]
    await until(lambda: reader.stats().journal_lag_ms is not None, "the journal")
    for _ in range(4):
        proxy.refusing = True
        kill_journals(server)
        await passed(1)
        least = len(versions.reads) + 50
        await until(partial(more_reads_than, versions, least), "reads without a journal")
        proxy.refusing = False
        await until(lambda: reader.stats().journal_lag_ms is not None, "the journal again")
    over = True
    await asyncio.gather(*tasks)
    measuring.cancel()
    assert versions.stale() == []


async def test_a_journal_that_was_lost_is_followed_again_at_once(
    connect: Connect, server: PrivateServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only an attempt that learned nothing is followed by a pause, which here has no end."""
    monkeypatch.setattr(journal, "PAUSE_S", 3600.0)
    here, there = await connect(), await connect()
    await caught_up(there, await here.invalidate(keys=["lost:1"]))
    kill_journals(server)
    await caught_up(there, await here.invalidate(keys=["lost:1"]))


async def test_a_process_that_wakes_up_does_not_take_an_old_answer_for_a_new_one(
    connect: Connect, proxy: FaultProxy, server: PrivateServer, namespace: str
) -> None:
    """Stopped for three seconds, 40 ms from the server: the answer that lay in its socket is from before the change."""
    proxy.delay_s = ROUND_TRIP_S
    writer, versions, database = await connect(), Versions(), f"{namespace}:database"
    arguments = ("-m", "tests.support.timed_reading", proxy.url, server.url, namespace)
    reader = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, stdout=asyncio.subprocess.PIPE, cwd=Path(__file__).parents[2], limit=1 << 22
    )

    async def note() -> None:
        assert reader.stdout is not None
        async for line in reader.stdout:
            began, value = line.split()
            versions.reads.append((float(began), int(value)))

    noting = asyncio.create_task(note())
    try:
        for version in range(1, 4):
            before = len(versions.reads)
            await until(lambda least=before: len(versions.reads) > least + 300, "reads")  # type: ignore[misc]
            reader.send_signal(signal.SIGSTOP)
            await writer.invalidate(keys=["other"])  # the answer that it will find
            await passed(STOPPED_S)
            await writer.client.store.call("HSET", database, 1, version)
            await writer.client.store.call("EXPIRE", database, 600)
            await writer.invalidate(keys=["timed:1"])
            versions.returned.append((time.monotonic(), version))
            await passed(LATE_S * 2)
            reader.send_signal(signal.SIGCONT)
        await until(lambda: versions.reads[-1][1] == version, "reads after it")
    finally:
        reader.kill()
        await noting
        await reader.wait()
    assert versions.stale() == []


def kill_journals(server: PrivateServer) -> None:
    """End every connection that waits for records."""
    for client in server.ask("CLIENT", "LIST").decode().splitlines():
        if "cmd=xread" in client:
            server.ask("CLIENT", "KILL", "ID", client.split()[0].removeprefix("id="))


def more_reads_than(versions: Versions, least: int) -> bool:
    """Whether so many have come."""
    return len(versions.reads) > least


async def passed(seconds: float) -> None:
    """Let a time pass in which this process does nothing: what is tested is what the other one does after it."""
    began = time.monotonic()
    await until(lambda: time.monotonic() - began > seconds, f"{seconds} s")


async def test_a_load_under_way_is_joined_only_where_the_table_is_trusted(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A deaf process asks the ledger before it lets a caller join a load that began before the caller came."""
    version, gate, loads = 1, asyncio.Event(), 0

    async def load(n: int) -> int:
        nonlocal loads
        loads += 1
        seen = version
        await gate.wait()
        return seen

    here = await connect()
    monkeypatch.setattr(Journal, "run", lambda _self: asyncio.Event().wait())
    deaf = await connect()
    view = deaf.view("joined:{n}", ttl="1h")(load)
    early = asyncio.create_task(view(1))
    await until(lambda: loads == 1, "the load")
    version = 2
    await here.invalidate(keys=["joined:1"])
    late = asyncio.create_task(view(1))
    await asyncio.sleep(0)
    gate.set()
    assert [await early, await late] == [1, 2]


@pytest.mark.parametrize(("max_lag_ms", "trusts"), [(1, False), (60_000, True)])
async def test_a_process_that_lags_too_far_asks(
    connect: Connect, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch, max_lag_ms: int, *, trusts: bool
) -> None:
    """`CACHE_MAX_LAG`: a journal whose answers take longer than that is not trusted; the lag is shown."""
    asked: list[Sequence[str]] = []
    question = Ledger.question

    def noted(ledger: Ledger, scopes: tuple[str, ...]) -> Question:
        asked.append(scopes)
        return question(ledger, scopes)

    async def load(n: int) -> int:
        return n

    proxy.delay_s = 0.02
    cache = await connect(url=proxy.url, max_lag_ms=max_lag_ms)
    view = cache.view("lagging:{n}", ttl="1h")(load)
    await until(lambda: (cache.stats().journal_lag_ms or 0) >= 20, "the lag")
    await view(1)
    monkeypatch.setattr(Ledger, "question", noted)

    async def as_it_should() -> bool:
        asked.clear()
        assert await view(1) == 1
        return bool(asked) is not trusts

    await until(as_it_should, "a read that asks" if not trusts else "a read that does not ask")


async def test_a_hit_that_is_served_without_a_look_is_one_that_the_rule_would_serve() -> None:
    """The compiled form of the judgement, on the way of a memory hit, says what the judgement says."""
    draw = random.Random(11)  # noqa: S311 - a run that can be had again
    async with Cache.memory() as cache:

        @cache.view("compiled:{n}", ttl="1h", tags=["group:{n}"])
        async def view(n: int) -> int:
            return n

        await view(0)
        assert cache.reader is not None
        freshness, served = cache.reader.freshness, 0
        for _ in range(3_000):
            n = draw.randrange(4)
            scope = draw.choice((f"k:compiled:{n}", f"t:group:{n}", "*"))
            changes = [
                partial(freshness.invalidated, [scope], freshness.seen + 1),
                partial(freshness.queued, [scope]),
                partial(freshness.delivered, [scope], freshness.moment()),
                partial(freshness.heard, now_s() - draw.choice((0, TRUST_S + 1))),
                freshness.lost,
                partial(freshness.enter, str(draw.randrange(9)), freshness.seen, 0, {}),
                partial(freshness.resync, freshness.seen, freshness.seen, {}),
            ]
            if draw.random() < 0.08:
                draw.choice(changes)()
            else:
                await view(n)
            held = view.held((n,), {})
            if held is not None:
                served += 1
                heard = freshness.hears(now_s())
                verdict = freshness.judge(held.as_of, held.scopes, heard=heard, moment=held.moment)
                assert verdict is Verdict.VALID
        assert served > 100
