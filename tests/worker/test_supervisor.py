"""Services break one at a time, come back by themselves, and end together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
import structlog
from structlog.testing import capture_logs

from cachebus.errors import Unavailable
from cachebus.process import supervisor
from cachebus.process.supervisor import LONGEST_PAUSE_S, Service, Supervisor, pause_s


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses between restarts are short: what is tested is that they happen, `pause_s` says how long."""
    structlog.reset_defaults()
    monkeypatch.setattr(supervisor, "FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(supervisor, "LONGEST_PAUSE_S", 0.002)


async def until(true: Callable[[], bool]) -> None:
    """Wait for a predicate."""
    async with asyncio.timeout(10):
        while not true():  # noqa: ASYNC110 - what is waited for is a plain value of the service under test
            await asyncio.sleep(0.001)


async def for_ever() -> None:
    await asyncio.Event().wait()


def test_pauses_grow_to_a_ceiling_and_are_spread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each failure in a row doubles the pause up to half a minute, and two workers do not come back together."""
    monkeypatch.undo()
    assert [pause_s(failures, 1.0) for failures in (1, 2, 3)] == [0.5, 1.0, 2.0]
    assert pause_s(1_000_000, 1.0) == LONGEST_PAUSE_S
    assert pause_s(1, 0.0) < pause_s(1, 0.9)


async def test_a_broken_service_is_started_again_and_the_others_go_on() -> None:
    """One service raises, ends, raises: it runs again each time; its neighbour never noticed."""
    starts, neighbour = [0], asyncio.Event()

    async def shaky() -> None:
        starts[0] += 1
        if starts[0] % 2:
            raise RuntimeError("boom")

    async def steady() -> None:
        try:
            await for_ever()
        finally:
            neighbour.set()

    stop = asyncio.Event()
    running = asyncio.create_task(Supervisor([Service("shaky", shaky), Service("steady", steady)], drain_s=1).run(stop))
    await until(lambda: starts[0] > 5)
    assert not neighbour.is_set()
    stop.set()
    await running
    assert neighbour.is_set()


async def test_a_failure_is_told_once_until_it_changes() -> None:
    """Hundreds of attempts against an outage are one line; another reason is another line."""
    starts = [0]

    async def fails() -> None:
        starts[0] += 1
        raise Unavailable("redis is away" if starts[0] < 20 else "no permission")

    stop = asyncio.Event()
    with capture_logs() as said:
        running = asyncio.create_task(Supervisor([Service("bus", fails)], drain_s=1).run(stop))
        await until(lambda: starts[0] > 40)
        stop.set()
        await running
    assert [line["error"] for line in said] == ["Unavailable: redis is away", "Unavailable: no permission"]


async def test_a_service_that_runs_again_is_no_longer_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Health names what is broken and why, until it has run for a moment."""
    monkeypatch.setattr(supervisor, "SETTLED_S", 0.01)
    starts = [0]

    async def once() -> None:
        starts[0] += 1
        if starts[0] == 1:
            raise RuntimeError("boom")
        await for_ever()

    service = Service("once", once)
    watched = Supervisor([service], drain_s=1)
    stop = asyncio.Event()
    running = asyncio.create_task(watched.run(stop))
    await until(lambda: bool(watched.broken))
    assert watched.broken == {"once": "RuntimeError: boom"}
    await until(lambda: not watched.broken)
    assert service.restarts == 1
    stop.set()
    await running


async def test_drain_finishes_what_is_under_way() -> None:
    """Told to stop, a service ends its work before it is cancelled."""
    stop, finished, intake = asyncio.Event(), [], asyncio.Event()

    async def work() -> None:
        await intake.wait()
        finished.append("handed over")
        await for_ever()

    async def drain() -> None:
        intake.set()
        await until(lambda: bool(finished))
        finished.append("drained")

    running = asyncio.create_task(Supervisor([Service("bus", work, drain)], drain_s=5).run(stop))
    stop.set()
    await running
    assert finished == ["handed over", "drained"]


async def test_what_feeds_others_is_drained_first() -> None:
    """What the one hands over while it ends, the other still takes."""
    stop, order = asyncio.Event(), []

    async def feed() -> None:
        await asyncio.sleep(0)
        order.append("handed over")

    async def take() -> None:
        order.append("taken")

    stop.set()
    services = [Service("takes", for_ever, take), Service("feeds", for_ever, feed, feeds=True)]
    await Supervisor(services, drain_s=5).run(stop)
    assert order == ["handed over", "taken"]


async def test_a_drain_that_hangs_or_fails_does_not_hold_the_process() -> None:
    """The budget ends a drain that does not end; one that raises does not stop the other."""
    stop, drained = asyncio.Event(), []

    async def fails() -> None:
        raise RuntimeError("no")

    async def good() -> None:
        drained.append("good")

    services = [
        Service("hangs", for_ever, for_ever, feeds=True),
        Service("fails", for_ever, fails, feeds=True),
        Service("good", for_ever, good),
    ]
    stop.set()
    with capture_logs() as said:
        async with asyncio.timeout(5):
            await Supervisor(services, drain_s=0.05).run(stop)
    assert drained == ["good"]
    assert {line["service"] for line in said} == {"hangs", "fails"}


async def test_a_service_that_refuses_to_end_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cancelled and still running: cancelled once, named, and the others are not waited for longer."""
    monkeypatch.setattr(supervisor, "CANCEL_S", 0.01)
    release, cancelled = asyncio.Event(), [0]

    async def stubborn() -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                cancelled[0] += 1

    stop = asyncio.Event()
    with capture_logs() as said:
        running = asyncio.create_task(Supervisor([Service("stubborn", stubborn)], drain_s=0.01).run(stop))
        await asyncio.sleep(0)
        stop.set()
        await running
    assert [line["service"] for line in said] == ["stubborn"]
    assert cancelled == [1]
    release.set()
    await asyncio.sleep(0.01)
