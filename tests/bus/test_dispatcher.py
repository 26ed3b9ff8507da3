"""What becomes of events and retries, decided without a server: finished, tried again, dead-lettered, committed."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from typing import Any

import msgspec
import pytest

from cachebus.bus.effects import Broadcast, Drop, Effects
from cachebus.bus.engine import commit, dispatcher, runs
from cachebus.bus.engine.commit import Plan
from cachebus.bus.engine.dispatcher import Dispatcher
from cachebus.bus.engine.runs import DueRetry
from cachebus.bus.events import Event, EventRecord
from cachebus.bus.handlers import Handler, Routes, on
from cachebus.bus.letters import RetryItem


class Number(msgspec.Struct):
    n: int


@on("numbers", Number, name="echo")
def echo(event: Number) -> Effects:
    """Broadcast the number."""
    yield Broadcast("numbers", "n", event.n)


@on("numbers", Number, name="later")
async def later(event: Number) -> Effects:
    """The same, asynchronously."""
    return [Broadcast("numbers", "n", event.n)]


@pytest.fixture(autouse=True)
def _plans_stay_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long it takes here: they are committed when they are full."""
    monkeypatch.setattr(dispatcher, "OPEN_S", 3600.0)


def record(n: int, payload: bytes | None = None, *more: bytes) -> EventRecord:
    """Return event number *n* as it lies in the stream."""
    body = b'{"n":%d}' % n if payload is None else payload
    return EventRecord([b"%d-0" % n, [b"channel", b"numbers", b"payload", body, *more]])


def retry(n: int, handler: str, attempt: int = 2) -> DueRetry:
    """Return a retry of event number *n*."""
    item = RetryItem(handler, f"{n}-0", "numbers", b'{"n":%d}' % n, "", "")
    return DueRetry(item.name, attempt, item)


class Commits:
    """What was committed."""

    def __init__(self) -> None:
        self.plans: list[Plan] = []

    async def __call__(self, plan: Plan) -> Plan:
        """Take a plan, return an empty one."""
        self.plans.append(plan)
        return Plan()


def dispatching(*handlers: Handler[..., Any], **options: Any) -> Dispatcher:
    """Return a dispatcher of these handlers."""
    return Dispatcher(Routes(handlers), **options)


async def test_a_retry_whose_handler_is_gone_is_a_dead_letter_and_done_with() -> None:
    """Those beside it run."""
    dispatch = dispatching(echo)
    plan = await dispatch.repeat([retry(1, "removed"), retry(2, "echo")], Plan(), Commits())
    (letter,) = plan.dead
    assert (letter.kind, letter.handler, letter.attempts) == ("lost handler", "removed", 2)
    assert plan.done == ["1-0/removed", "2-0/echo"]
    assert (dispatch.stats.dead_lettered, dispatch.stats.handled, len(plan.broadcasts)) == (1, 1, 1)


@pytest.mark.parametrize("handler", [echo, later])
async def test_a_retry_that_succeeds_is_done_with(handler: Handler[..., Any]) -> None:
    """Plain or asynchronous; one that fails again stays among the retries, counted."""

    @on("numbers", Number, name=handler.name, backoff="1s")
    def failing(_event: Number) -> None:
        raise RuntimeError("again")

    good, bad = dispatching(handler), dispatching(failing)
    plan = await good.repeat([retry(1, handler.name)], Plan(), Commits())
    assert (plan.done, plan.again, len(plan.broadcasts)) == ([f"1-0/{handler.name}"], [], 1)
    plan = await bad.repeat([retry(1, handler.name)], Plan(), Commits())
    assert (plan.done, [name for name, _ in plan.again]) == ([], [f"1-0/{handler.name}"])
    assert (good.stats.handled, bad.stats.handled, bad.stats.failures) == (1, 0, {handler.name: 1})


async def test_a_dropped_retry_is_done_with_and_leaves_no_letter() -> None:
    """Counted as dropped, not as failed."""

    @on("numbers", Number, name="drops")
    def drops(_event: Number) -> None:
        raise Drop

    dispatch = dispatching(drops)
    plan = await dispatch.repeat([retry(1, "drops")], Plan(), Commits())
    assert (plan.done, plan.dead, plan.again) == (["1-0/drops"], [], [])
    assert (dispatch.stats.dropped, dispatch.stats.failed) == (1, 0)


def test_a_poison_message_is_a_dead_letter_of_each_handler() -> None:
    """Out of the stream, and out of the retries, where it is done with; the reason says how many it ended."""
    dispatch, plan = dispatching(echo, later), Plan()
    dispatch.condemn(Event("1-0", "numbers", b"{}"), plan, 2)
    dispatch.condemn_retry(retry(2, "echo", attempt=3), plan, 4)
    assert [(each.kind, each.handler, each.attempts) for each in plan.dead] == [
        ("poison", "echo", 1),
        ("poison", "later", 1),
        ("poison", "echo", 3),
    ]
    assert [each.reason.partition(" ")[0] for each in plan.dead] == ["2", "2", "4"]
    assert (plan.done, dispatch.stats.dead_lettered) == (["2-0/echo"], 3)


async def test_who_hangs_can_be_named() -> None:
    """Of the task that blocks the loop: the event, the retry, or all events of a list; of any other task nothing."""
    found: dict[str, list[str]] = {}

    def note(what: str) -> None:
        found[what] = dispatch.running_in(asyncio.current_task())

    @on("numbers", Number, name="plain")
    def plain(_event: Number) -> None:
        note("plain")

    @on("numbers", Number, name="waiting")
    async def waiting(_event: Number) -> None:
        note("waiting")

    @on("numbers", Number, name="lists", batch=10)
    def lists(events: list[Number]) -> None:
        note("lists")

    @on("numbers", Number, name="waiting lists", batch=10)
    async def waiting_lists(events: list[Number]) -> None:
        note("waiting lists")

    dispatch = dispatching(plain, waiting, lists, waiting_lists)
    await dispatch.work([record(1), record(2)], Plan(), Commits())
    assert found == {
        "plain": ["2-0"],
        "waiting": ["2-0"],
        "lists": ["1-0", "2-0"],
        "waiting lists": ["1-0", "2-0"],
    }
    await dispatch.repeat([retry(1, "plain"), retry(1, "waiting")], Plan(), Commits())
    assert (found["plain"], found["waiting"]) == (["1-0/plain"], ["1-0/waiting"])
    assert dispatch.running_in(asyncio.current_task()) == dispatch.running_in(None) == []
    other = asyncio.create_task(asyncio.sleep(0))
    assert dispatch.running_in(other) == []
    await other


async def test_between_handlers_nobody_hangs() -> None:
    """Where the loop blocks while a plan is committed no event is to blame; a retry that runs first is found, too."""
    found: list[list[str]] = []

    @on("numbers", Number, name="plain")
    def plain(_event: Number) -> None:
        found.append(dispatch.running_in(asyncio.current_task()))

    async def cut(_plan: Plan) -> Plan:
        found.append(dispatch.running_in(asyncio.current_task()))
        return Plan()

    @on("numbers", Number, name="lists", batch=10)
    def lists(_events: list[Number]) -> None:
        pass

    dispatch = dispatching(plain)
    await dispatch.repeat([retry(1, "plain")], Plan(), cut)
    await cut(await dispatch.work([record(2)], Plan(), cut))
    dispatch = dispatching(lists)
    await cut(await dispatch.work([record(3)], Plan(), cut))
    assert found == [["1-0/plain"], ["2-0"], [], []]


async def test_a_payload_of_the_longest_is_handled_and_one_byte_more_is_not() -> None:
    """The letter names the limit; a record that is no event keeps its own reason."""
    body = b'{"n":1}'
    dispatch = dispatching(echo, max_payload_bytes=len(body))
    foreign = EventRecord([b"3-0", [b"text", b"x" * 100]])
    plan = await dispatch.work([record(1, body), record(2, body + b" "), foreign], Plan(), Commits())
    assert len(plan.broadcasts) == 1
    assert [each.reason.partition(";")[0] for each in plan.dead] == [
        "the payload is longer than 7 bytes",
        "the record has no field `channel`",
    ]
    assert (dispatch.stats.handled, dispatch.stats.dead_lettered) == (1, 2)


@pytest.mark.parametrize("handler", [echo, later])
async def test_a_plan_that_is_full_is_committed_and_one_that_is_not_is_not(
    handler: Handler[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of events as of retries."""
    for most, plans in ((1, 3), (10_000, 0)):
        monkeypatch.setattr(commit, "ENOUGH_ARGUMENTS", most)
        dispatch, commits = dispatching(handler), Commits()
        left = await dispatch.work([record(n) for n in range(1, 4)], Plan(), commits)
        assert (len(commits.plans), len(left.broadcasts)) == (plans, 0 if plans else 3)
        commits = Commits()
        await dispatch.repeat([retry(n, handler.name) for n in range(1, 4)], Plan(), commits)
        assert len(commits.plans) == plans


async def test_a_plan_that_has_been_open_for_long_is_committed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits for a list is in it."""

    @on("numbers", Number, name="lists", batch=10)
    def lists(events: list[Number]) -> Effects:
        yield Broadcast("numbers", "n", [event.n for event in events])

    monkeypatch.setattr(dispatcher, "OPEN_S", -1.0)
    commits = Commits()
    await dispatching(lists).work([record(1), record(2)], Plan(), commits)
    assert [len(plan.broadcasts) for plan in commits.plans] == [1, 1]


@pytest.mark.parametrize("kind", ["events", "retries"])
async def test_what_was_begun_ends_with_a_commit_that_fails(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No handler goes on that nobody waits for."""
    monkeypatch.setattr(commit, "ENOUGH_ARGUMENTS", 1)
    ended = asyncio.Event()

    @on("numbers", Number, name="waits", timeout="10m")
    async def waits(event: Number) -> Effects:
        if event.n == 1:
            return [Broadcast("numbers", "n", 1)]
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return []

    async def fails(_plan: Plan) -> Plan:
        raise ConnectionError("the server")

    dispatch = dispatching(waits)
    if kind == "events":
        done = dispatch.work([record(1), record(2)], Plan(), fails)
    else:
        done = dispatch.repeat([retry(1, "waits"), retry(2, "waits")], Plan(), fails)
    with pytest.raises(ConnectionError):
        await done
    await asyncio.wait_for(ended.wait(), 20)


@pytest.mark.parametrize("kind", ["events", "retries"])
async def test_no_more_run_side_by_side_than_may(kind: str) -> None:
    """As many as may, where there are as many."""
    side_by_side: list[int] = []
    running = 0

    @on("numbers", Number, name="waits")
    async def waits(_event: Number) -> None:
        nonlocal running
        running += 1
        side_by_side.append(running)
        await asyncio.sleep(0)
        running -= 1

    dispatch = dispatching(waits, concurrency=2)
    if kind == "events":
        await dispatch.work([record(n) for n in range(1, 6)], Plan(), Commits())
    else:
        await dispatch.repeat([retry(n, "waits") for n in range(1, 6)], Plan(), Commits())
    assert (len(side_by_side), max(side_by_side)) == (5, 2)


async def test_a_handler_that_swallows_its_cancellation_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a failed run; how it ends at last is of no interest to anybody, and the loop does not complain."""
    monkeypatch.setattr(runs, "GRACE_S", 0.05)
    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: complaints.append(context))
    release, tasks = asyncio.Event(), []

    @on("numbers", Number, name="stubborn", timeout="1ms", retries=0)
    async def stubborn(event: Number) -> None:
        tasks.append(asyncio.current_task())
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue
        if event.n == 1:
            raise RuntimeError("late")

    try:
        plan = await asyncio.wait_for(dispatching(stubborn).work([record(1), record(2)], Plan(), Commits()), 20)
    finally:
        release.set()
    assert ["still runs" in each.reason for each in plan.dead] == [True, True]
    await asyncio.wait(tasks)
    tasks.clear()
    await asyncio.sleep(0)
    gc.collect()
    assert complaints == []


async def test_a_handler_that_needs_two_cancellations_gets_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has ended when its run has failed, for the reason that it took too long."""
    monkeypatch.setattr(runs, "GRACE_S", 5.0)
    ends: list[str] = []

    @on("numbers", Number, name="slow to go", timeout="1ms", retries=0)
    async def slow_to_go(_event: Number) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.01)
            ends.append("ended")

    plan = await dispatching(slow_to_go).work([record(1)], Plan(), Commits())
    assert ends == ["ended"]
    assert [each.reason.partition(":")[0] for each in plan.dead] == ["TimeoutError"]


async def test_a_handler_that_is_cancelled_by_itself_has_failed() -> None:
    """The worker goes on."""

    @on("numbers", Number, name="cancels", retries=0)
    async def cancels(event: Number) -> None:
        if event.n == 1:
            raise asyncio.CancelledError

    dispatch = dispatching(cancels)
    plan = await dispatch.work([record(1), record(2)], Plan(), Commits())
    assert ([each.kind for each in plan.dead], dispatch.stats.handled) == (["failed"], 1)


async def test_no_handler_begins_on_an_event_that_is_refused() -> None:
    """And each answer is that of its own event."""
    seen: list[int] = []

    @on("numbers", Number, name="notes")
    async def notes(event: Number) -> Effects:
        seen.append(event.n)
        return [Broadcast("numbers", "n", event.n)]

    body = b'{"n":1}'
    plan = await dispatching(notes, max_payload_bytes=len(body)).work(
        [record(1, body + b" "), record(2)], Plan(), Commits()
    )
    assert (seen, len(plan.broadcasts), len(plan.dead)) == ([2], 1, 1)


async def test_a_letter_says_where_an_answer_that_cannot_be_written_came_from() -> None:
    """Of a payload that nobody can read the reason says all."""

    @on("numbers", Number, name="unfit")
    def unfit(_event: Number) -> Effects:
        yield Broadcast("numbers", "n", object())

    plan = await dispatching(unfit).work([record(1), record(2, b"?")], Plan(), Commits())
    assert [(each.kind, bool(each.detail)) for each in plan.dead] == [("unfit", True), ("invalid", False)]


async def test_a_list_that_fails_is_tried_event_by_event_and_alone_it_is_its_own_failure() -> None:
    """The whole list counts once as failed, each event begins anew; of one event the attempt counts."""

    @on("numbers", Number, name="lists", batch=10, retries=0)
    def lists(_events: list[Number]) -> None:
        raise RuntimeError("no")

    dispatch = dispatching(lists)
    plan = await dispatch.work([record(1), record(2)], Plan(), Commits())
    assert [(name, delay_ms, blob.partition(b"\n")[0]) for name, delay_ms, blob in plan.retries] == [
        ("1-0/lists", 0, b"0"),
        ("2-0/lists", 0, b"0"),
    ]
    assert plan.dead == []
    assert (dispatch.stats.failed, dispatch.stats.handled) == (1, 0)
    plan = await dispatch.work([record(3)], Plan(), Commits())
    assert (plan.retries, [each.kind for each in plan.dead]) == ([], ["failed"])
    assert (dispatch.stats.failed, dispatch.stats.dead_lettered) == (2, 1)
