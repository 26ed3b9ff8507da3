"""One consumer: an event becomes its effects, all of them, once; what cannot be handled becomes a dead letter."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Literal

import msgspec
import pytest

from cachebus.bus.dead_letters import DeadLetters
from cachebus.bus.effects import Broadcast, Drop, Effect, Effects, Invalidate, Publish, Refresh, Retry
from cachebus.bus.engine.consumer import Committed, Consumer, ConsumerOptions
from cachebus.bus.events import Event
from cachebus.bus.handlers import on
from cachebus.bus.publisher import Bus
from cachebus.redis.client import Client
from tests.support.serving import add, data, fed, ledger, number, running

Until = Callable[..., Any]


class Number(msgspec.Struct):
    n: int


class Trade(msgspec.Struct):
    user_id: int
    action: Literal["new_trade"]


class PortfolioView:
    """A view as a handler sees it."""

    name = "portfolio:{user_id}"

    def key(self, user_id: int) -> str:
        return f"portfolio:{user_id}"

    def encode_arguments(self, user_id: int) -> bytes:
        return b"[%d]" % user_id


portfolio = PortfolioView()


@on("trade:updates", Trade)
def trade_changed(event: Trade) -> Effects:
    """Invalidate, tell, refresh."""
    yield Invalidate(tags=[f"user:{event.user_id}"])
    yield Broadcast(f"user:{event.user_id}", f"trade.{event.action}", {"user": event.user_id})
    yield Refresh(portfolio, event.user_id)


@on("numbers", Number, name="echo")
def echo(event: Number) -> Effects:
    """Broadcast the number."""
    yield Broadcast("numbers", "n", event.n)


async def test_an_event_becomes_all_its_effects(client: Client, until: Until) -> None:
    """Ledger, journal, feed, the channel ws:<topic>, and a refresh item: all there, with one clock."""
    heard: list[tuple[str, bytes]] = []
    await client.subscriptions.subscribe("ws:user:7", lambda channel, payload: heard.append((channel, payload)))
    consumer = Consumer(client, [trade_changed])
    async with running(consumer):
        await Bus(client).publish("trade:updates", {"user_id": 7, "action": "new_trade"})
        await until(lambda: heard, "nothing was broadcast")
    scopes = await ledger(client)
    clock = scopes["t:user:7"]
    assert scopes["k:portfolio:7"] == scopes["@clock"] == clock
    journal = await client.store.call("XRANGE", client.names.journal, "-", "+")
    assert journal[0][0] == f"{clock}-0".encode()
    era = next(name for name in scopes if name.startswith("@era:")).removeprefix("@era:")
    (record,) = await fed(client)
    message = msgspec.json.decode(record.message)
    assert heard == [("ws:user:7", record.message)]
    facts = {"id": record.id, "ts": message["ts"], "fresh_after": f"{clock}.{era}", "topic": "user:7"}
    assert message == facts | {"type": "trade.new_trade", "data": {"user": 7}}
    assert record.id.endswith(f"-{message['id'].split('-')[1]}")
    item = await client.store.call("HGET", client.names.bus("refresh-items"), "portfolio:7")
    assert item == b"%d.%b\n0\n0\nportfolio:{user_id}\n[7]" % (clock, era.encode())
    assert await client.store.call("ZCARD", client.names.bus("refreshes")) == 1


async def test_events_are_handled_in_order_and_once(client: Client, until: Until) -> None:
    """3,000 events, published before and while the consumer runs: 3,000 broadcasts in their order."""
    await add(client, "numbers", *map(number, range(1500)))
    consumer = Consumer(client, [echo])
    async with running(consumer):
        await add(client, "numbers", *map(number, range(1500, 3000)))
        await until(lambda: consumer.stats.events == 3000)
    assert await data(client) == list(range(3000))
    assert consumer.stats.waiting == 0


async def test_equal_invalidations_of_a_burst_are_written_once(client: Client, until: Until) -> None:
    """10,000 events that each invalidate 10 scopes: at most a ledger write for each 200 that are read at once."""

    @on("burst", Number)
    def ten(event: Number) -> Effects:
        yield Invalidate(tags=[f"tag:{n}" for n in range(10)])

    stream = client.names.bus("events", "0")
    wire = await client.store.dedicated(stream)
    for _ in range(10):
        await asyncio.gather(
            *[wire.send("XADD", stream, "*", "channel", "burst", "payload", '{"n":1}') for _ in range(1000)]
        )
    await wire.close()
    consumer = Consumer(client, [ten])
    async with running(consumer):
        await until(lambda: consumer.stats.events == 10_000)
    assert await client.store.call("XLEN", client.names.journal) <= 50
    assert len([scope for scope in await ledger(client) if scope.startswith("t:")]) == 10


@pytest.mark.parametrize(
    ("payload", "field"),
    [
        (b'{"user_id": 1', "truncated"),
        (b'{"user_id": "one", "action": "new_trade"}', "$.user_id"),
        (b'{"user_id": 1, "action": "exploded"}', "$.action"),
        (b'{"action": "new_trade"}', "user_id"),
        (b"\x00\xff garbage", "malformed"),
    ],
)
async def test_an_invalid_event_is_a_dead_letter_that_names_the_field(
    client: Client, until: Until, payload: bytes, field: str
) -> None:
    """No retry, no effect, and the neighbours are handled."""
    good = b'{"user_id": 7, "action": "new_trade"}'
    await add(client, "trade:updates", good, payload, good)
    consumer = Consumer(client, [trade_changed])
    async with running(consumer):
        await until(lambda: consumer.stats.events == 3)
    (letter,) = await DeadLetters(client).list()
    assert field in letter.reason
    assert (letter.kind, letter.payload, letter.channel, letter.attempts) == ("invalid", payload, "trade:updates", 1)
    assert len(await fed(client)) == 2


async def test_records_of_other_programs_do_no_harm(client: Client, until: Until) -> None:
    """Unknown channels are counted and skipped; records without a channel become dead letters."""
    stream = client.names.bus("events", "0")
    await client.store.call("XADD", stream, "*", "hello", "world")
    await client.store.call("XADD", stream, "*", "payload", b"\xff", "channel", b"\xff\xfe")
    await client.store.call("XADD", stream, "*", "payload", number(1), "other", "x", "channel", "numbers")
    await add(client, "nobody:listens", b"{}")
    consumer = Consumer(client, [echo])
    async with running(consumer):
        await until(lambda: consumer.stats.events == 4)
    assert await data(client) == [1]
    assert consumer.stats.handlers.skipped == 2
    (letter,) = await DeadLetters(client).list()
    assert "no field `channel`" in letter.reason


async def test_a_failing_handler_is_retried_and_then_a_dead_letter(client: Client, until: Until) -> None:
    """Three attempts, each counted; then reason, traceback and payload. Others are not held up."""
    attempts: list[int] = []

    @on("fails", Number, retries=2, backoff="10ms", name="fails")
    def fails(event: Number, envelope: Event) -> None:
        attempts.append(envelope.attempt)
        raise ValueError(f"no {event.n}")

    await add(client, "fails", number(5))
    await add(client, "numbers", number(6))
    consumer = Consumer(client, [fails, echo])
    async with running(consumer):
        await until(lambda: consumer.stats.handlers.dead_lettered == 1)
        (letter,) = await until(lambda: DeadLetters(client).list())
    assert attempts == [1, 2, 3]
    assert (letter.kind, letter.reason, letter.handler, letter.attempts) == ("failed", "ValueError: no 5", "fails", 3)
    assert letter.payload == number(5)
    assert 'raise ValueError(f"no {event.n}")' in letter.detail
    assert await data(client) == [6]
    assert await client.store.call("ZCARD", client.names.bus("retries", "0")) == 0
    assert await client.store.call("HLEN", client.names.bus("retry-items", "0")) == 0


async def test_effects_of_a_run_that_failed_are_not_kept(client: Client, until: Until) -> None:
    """A handler that yields and then raises has said nothing; when it succeeds it is heard once."""
    runs: list[int] = []

    @on("half", Number, backoff="5ms")
    def half(event: Number) -> Effects:
        yield Broadcast("half", "half", event.n)
        runs.append(event.n)
        if len(runs) < 3:
            raise RuntimeError("not yet")

    await add(client, "half", number(1))
    consumer = Consumer(client, [half])
    async with running(consumer):
        await until(lambda: consumer.stats.handlers.handled == 1)
        await until(lambda: data(client))
    assert await data(client) == [1]
    assert len(runs) == 3


async def test_only_the_handler_that_failed_runs_again(client: Client, until: Until) -> None:
    """Two handlers of one event are retried apart."""
    runs: list[str] = []

    @on("pair", Number, name="sound")
    def sound(event: Number) -> None:
        runs.append("sound")

    @on("pai*", Number, name="sick", backoff="5ms")
    def sick(event: Number) -> None:
        runs.append("sick")
        if runs.count("sick") < 3:
            raise RuntimeError

    await add(client, "pair", number(1))
    consumer = Consumer(client, [sound, sick])
    async with running(consumer):
        await until(lambda: consumer.stats.handlers.handled == 2)
    assert sorted(runs) == ["sick", "sick", "sick", "sound"]


async def test_retry_and_drop_are_signals(client: Client, until: Until) -> None:
    """Retry comes back after the time it says; Drop is the end, without a dead letter."""
    seen: list[int] = []

    @on("signals", Number)
    def signals(event: Number, envelope: Event) -> None:
        seen.append(event.n)
        if event.n == 1:
            raise Drop("not for us")
        if envelope.attempt == 1:
            raise Retry("1ms")

    await add(client, "signals", number(1), number(2))
    consumer = Consumer(client, [signals])
    async with running(consumer):
        await until(lambda: seen == [1, 2, 2])
        await until(lambda: consumer.stats.handlers.handled == 1)
    assert consumer.stats.handlers.dropped == 1
    assert await DeadLetters(client).count() == 0


async def test_an_asynchronous_handler_past_its_timeout_is_retried_and_holds_nobody_up(
    client: Client, until: Until
) -> None:
    """The event goes to the retries; the next one is handled."""

    @on("slow", Number, timeout="20ms", retries=0, name="slow")
    async def slow(event: Number) -> AsyncIterator[Effect]:
        await asyncio.sleep(3600 if event.n == 1 else 0)
        yield Broadcast("slow", "slow", event.n)

    await add(client, "slow", number(1), number(2))
    consumer = Consumer(client, [slow])
    async with running(consumer):
        await until(lambda: consumer.stats.events == 2)
    assert await data(client) == [2]
    (letter,) = await DeadLetters(client).list()
    assert letter.reason == "TimeoutError: not done within 0.02 s"


async def test_asynchronous_handlers_run_side_by_side_and_answer_in_order(client: Client, until: Until) -> None:
    """Eight events whose handlers all wait for each other are handled, in stream order."""
    together = asyncio.Barrier(8)

    @on("together", Number)
    async def meet(event: Number) -> Effects:
        await together.wait()
        await asyncio.sleep(0.001 * (8 - event.n))
        return [Broadcast("together", "t", event.n)]

    await add(client, "together", *map(number, range(8)))
    consumer = Consumer(client, [meet], options=ConsumerOptions(concurrency=8))
    async with running(consumer):
        await until(lambda: consumer.stats.events == 8)
    assert await data(client) == list(range(8))


async def test_a_handler_of_lists_gets_lists_and_one_bad_event_is_found_alone(client: Client, until: Until) -> None:
    """The list that fails is tried one by one; the good ones have their effects once, the bad one is a dead letter."""
    calls: list[int] = []

    @on("lists", Number, batch=10, retries=0, name="lists")
    def lists(events: list[Number]) -> Effects:
        calls.append(len(events))
        for event in events:
            if event.n == 13:
                raise ValueError("thirteen")
            yield Broadcast("lists", "n", event.n)

    await add(client, "lists", *map(number, range(20)))
    consumer = Consumer(client, [lists])
    async with running(consumer):
        await until(lambda: consumer.stats.handlers.dead_lettered == 1)
        await until(lambda: consumer.stats.handlers.handled == 19)
        await until(lambda: consumer.stats.waiting == 0)
    assert calls[:2] == [10, 10]
    assert calls[2:] == [1] * 10
    assert sorted(await data(client)) == [n for n in range(20) if n != 13]
    assert [letter.reason for letter in await DeadLetters(client).list()] == ["ValueError: thirteen"]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("text", "returned str"),
        (5, "returned int"),
        ([object()], "is not an effect"),
        ([Invalidate(prefix="portfolio")], "prefix"),
        ([Broadcast("a\nb", "t")], "topic"),
        ([Broadcast("a", "t", object())], "JSON"),
        ([Broadcast("a", "t", {"note": None, "price": float("nan")})], "field 'data.price' is nan"),
        ([Broadcast("a", "t", "x" * 300_000)], "limit"),
        ([Publish("ws:user:7", {})], "channel"),
        ([Broadcast("a", "t", n) for n in range(901)], "too many effects"),
        ([Refresh(portfolio)], "Refresh"),
    ],
)
async def test_an_answer_that_cannot_be_written_is_a_dead_letter_at_once(
    client: Client, until: Until, answer: Any, reason: str
) -> None:
    """The reason says what is wrong; nothing of the answer is written; the stream goes on."""

    @on("odd", Number, name="odd")
    def odd(event: Number) -> Any:
        return answer

    await add(client, "odd", number(1))
    await add(client, "numbers", number(2))
    consumer = Consumer(client, [odd, echo])
    async with running(consumer):
        await until(lambda: consumer.stats.events == 2)
    (letter,) = await DeadLetters(client).list()
    assert (letter.kind, letter.attempts) == ("unfit", 1)
    assert reason in letter.reason
    assert await data(client) == [2]


async def test_more_effects_than_one_script_takes_are_cut_into_several_commits(client: Client, until: Until) -> None:
    """Each event's effects stay together; no call has more than 1,000 arguments."""

    @on("many", Number)
    def many(event: Number) -> Effects:
        return [Broadcast("many", "n", [event.n, part]) for part in range(300)]

    await add(client, "many", *map(number, range(10)))
    commits: list[Committed] = []
    consumer = Consumer(client, [many], options=ConsumerOptions(on_committed=commits.append))
    async with running(consumer):
        await until(lambda: consumer.stats.events == 10)
    assert await data(client) == [[n, part] for n in range(10) for part in range(300)]
    assert len(commits) >= 5
    assert [commit.events for commit in commits] == [2] * 5


async def test_a_published_effect_is_an_event_like_any_other(client: Client, until: Until) -> None:
    """It is handled in turn, and plain listeners hear it."""
    heard: list[bytes] = []
    await client.subscriptions.subscribe("numbers", lambda _, payload: heard.append(payload))

    @on("first", Number)
    def first(event: Number) -> Effects:
        yield Publish("numbers", Number(event.n + 1), key="k")

    await add(client, "first", number(1))
    consumer = Consumer(client, [first, echo])
    async with running(consumer):
        await until(lambda: consumer.stats.events == 2)
        await until(lambda: heard == [b'{"n":2}'])
    assert await data(client) == [2]


async def test_handlers_run_where_views_load_and_never_serve(client: Client, until: Until) -> None:
    """The context manager given as `loading` is entered around plain, asynchronous and retried runs."""
    inside = False
    seen: list[bool] = []

    @contextlib.contextmanager
    def loading() -> Iterator[None]:
        nonlocal inside
        inside = True
        try:
            yield
        finally:
            inside = False

    @on("plain", Number, backoff="1ms")
    def plain(event: Number, envelope: Event) -> None:
        seen.append(inside)
        if envelope.attempt == 1:
            raise Retry

    @on("plain", Number)
    async def waiting(event: Number) -> None:
        seen.append(inside)

    await add(client, "plain", number(1))
    consumer = Consumer(client, [plain, waiting], options=ConsumerOptions(loading=loading))
    async with running(consumer):
        await until(lambda: consumer.stats.handlers.handled == 2)
    assert seen == [True, True, True]
    assert not inside


async def test_on_committed_tells_the_time_from_publication_to_commit(client: Client, until: Until) -> None:
    """Each commit says how many events it had, how old they were, and what still waits."""
    commits: list[Committed] = []
    consumer = Consumer(client, [echo], options=ConsumerOptions(on_committed=commits.append))
    async with running(consumer):
        await until(lambda: consumer.active)
        await add(client, "numbers", number(1))
        await until(lambda: commits)
    assert commits[0].events == 1
    assert 0 <= commits[0].newest_ms <= commits[0].oldest_ms < 10_000
    assert commits[0].waiting == 0
    assert int(commits[0].clock.partition(".")[0]) > 1_600_000_000_000_000


async def test_whoever_watches_commits_cannot_stop_them(
    client: Client, until: Until, caplog: pytest.LogCaptureFixture
) -> None:
    """A hook that raises is told in the log; the shard goes on."""

    def broken(_commit: Committed) -> None:
        raise RuntimeError("the status line broke")

    consumer = Consumer(client, [echo], options=ConsumerOptions(on_committed=broken))
    async with running(consumer):
        for n in range(3):
            await add(client, "numbers", number(n))
            await until(lambda n=n: consumer.stats.events == n + 1)
    assert await data(client) == [0, 1, 2]
    assert "the status line broke" in caplog.text


async def test_drain_commits_what_is_under_way_and_gives_the_shard_back(client: Client, until: Until) -> None:
    """After drain() nothing is taken any more, and another consumer need not wait for the lease."""
    entered, leave = asyncio.Event(), asyncio.Event()

    @on("held", Number)
    async def held(event: Number) -> Effects:
        entered.set()
        await leave.wait()
        return [Broadcast("held", "n", event.n)]

    first = Consumer(client, [held], worker="first", lease="60s")
    second = Consumer(client, [held], worker="second", lease="60s")
    async with running(first):
        await add(client, "held", number(1))
        await entered.wait()
        draining = asyncio.create_task(first.drain())
        leave.set()
        await draining
        assert await data(client) == [1]
        async with running(second):
            await add(client, "held", number(2))
            await until(lambda: second.stats.events == 1)
    assert await data(client) == [1, 2]
    assert first.stats.events == 1
