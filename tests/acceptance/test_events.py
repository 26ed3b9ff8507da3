"""An event becomes effects, once: through real workers that are killed, stopped and cut off from Redis."""

from __future__ import annotations

import base64
import json
import re
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from shop.views import total

from cachebus import Cache, CacheSettings
from cachebus.bus.publisher import Bus
from cachebus.freshness.clock import parse_clock
from cachebus.testing.server import PrivateServer
from tests.support.worker_program import WorkerProcess, ask, asynchronously, until

Environment = dict[str, str]

FEED = "{cachebus}:feed"


@pytest.fixture
def worker(environment: Environment) -> Iterator[WorkerProcess]:
    """One worker of the shop, at work."""
    with WorkerProcess(environment) as worker:
        worker.said("worker started")
        yield worker


def feed(redis: PrivateServer) -> list[dict[str, Any]]:
    """Return every broadcast, in order."""
    records = []
    for _, fields in redis.ask("XRANGE", FEED, "-", "+"):
        records.append(json.loads(dict(zip(fields[::2], fields[1::2], strict=True))[b"record"]))
    return records


def numbers(redis: PrivateServer) -> list[int]:
    """Return the numbers of the orders that were broadcast, in order."""
    return [record["data"]["number"] for record in feed(redis)]


def cache_of(redis: PrivateServer) -> Cache:
    """A cache of this process: another app of the same deployment."""
    return Cache(settings=CacheSettings(url=redis.url))


async def publish(redis: PrivateServer, orders: range, channel: str = "orders") -> None:
    """Publish orders as an app does."""
    async with cache_of(redis) as cache:
        bus = Bus(cache.client)
        for number in orders:
            await bus.publish(channel, {"customer": 7, "number": number}, id=f"order-{channel}-{number}")


async def test_a_published_event_reaches_the_feed_and_the_channel(redis: PrivateServer, worker: WorkerProcess) -> None:
    """`publish()` ends as one record in the feed and one message on `ws:<topic>`, both saying what to read after."""
    heard: list[dict[str, Any]] = []
    async with cache_of(redis) as cache:
        listening = await cache.client.subscriptions.subscribe(
            "ws:user:*", lambda _channel, message: heard.append(json.loads(message)), pattern=True
        )
        await publish(redis, range(1))
        await asynchronously(lambda: bool(heard))
        await listening.cancel()
    (record,) = feed(redis)
    assert heard == [record]
    assert (record["topic"], record["type"], record["data"]) == ("user:7", "order.placed", {"number": 0})
    assert parse_clock(record["fresh_after"]) is not None


async def test_a_plain_message_is_an_event(
    redis: PrivateServer, worker: WorkerProcess, environment: Environment
) -> None:
    """`PUBLISH channel json`, from any language, is handled as `publish()` is: each one once, equal ones too."""
    until(lambda: ask(environment, "check", "--ready")[0] == 0, "the worker to hear")
    for number in (1, 2, 2, 3):
        redis.ask("PUBLISH", "orders", json.dumps({"customer": 7, "number": number}))
    until(lambda: len(feed(redis)) >= 4, "four broadcasts")
    await publish(redis, range(9, 10))
    until(lambda: len(feed(redis)) >= 5, "the fifth")
    assert numbers(redis) == [1, 2, 2, 3, 9]


async def test_what_a_reader_sees_after_the_event_is_new(
    redis: PrivateServer, worker: WorkerProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A view that a process has cached is new once the broadcast is out; the worker has loaded it, nobody else."""
    monkeypatch.setenv("SHOP_FOLDER", str(tmp_path))
    monkeypatch.setenv("REDIS_URL", redis.url)
    async with total.host:
        (tmp_path / "total-7").write_text("1")
        assert await total(7) == 1
        (tmp_path / "total-7").write_text("2")
        assert await total(7) == 1
        await publish(redis, range(1))
        until(lambda: len(feed(redis)) == 1, "the broadcast")
        assert await total(7, fresh_after=feed(redis)[0]["fresh_after"]) == 2
        until(lambda: not redis.ask("ZCARD", "{cachebus}:refreshes"), "the refresh")
    loads = (tmp_path / "loads").read_text().splitlines()
    assert len(loads) <= 3


def test_bad_events_become_dead_letters_that_name_the_field(
    redis: PrivateServer, worker: WorkerProcess, environment: Environment
) -> None:
    """Bad JSON, a wrong type, an unknown action, a missing field: each with its reason; the next event is handled."""
    bad = ["{", '{"customer": "seven"}', '{"customer": 7, "action": "eaten"}', '{"number": 1}', "\x00\x01"]
    for payload in bad:
        redis.ask("XADD", "{cachebus}:events:0", "*", "channel", "orders", "payload", payload)
    assert ask(environment, "publish", "orders", '{"customer": 7, "number": 5}')[0] == 0
    until(lambda: numbers(redis) == [5], "the good event")
    code, said = ask(environment, "letters", "list")
    assert code == 0
    assert len(said.splitlines()) == 1 + len(bad)
    for field in ("`$.customer`", "`$.action`", "`customer`"):
        assert field in said


def test_a_handler_that_fails_is_retried_then_buried_then_replayed(
    redis: PrivateServer, worker: WorkerProcess, environment: Environment
) -> None:
    """Attempts are counted, the letter carries the traceback; replay says that it failed again, under the same id.

    Each attempt is one line of the log, which says where: process, release, and the shard's service.
    """
    refused = '{"customer": 7, "number": 3, "action": "refused"}'
    assert ask(environment, "publish", "orders", refused)[0] == 0
    until(lambda: redis.ask("XLEN", "{cachebus}:deadletters"), "the dead letter")
    letter_id = redis.ask("XRANGE", "{cachebus}:deadletters", "-", "+")[0][0].decode()
    code, said = ask(environment, "letters", "show", letter_id)
    assert code == 0
    assert "order 3 cannot be taken" in said
    assert "2 attempts" in said
    assert refused in said
    code, said = ask(environment, "letters", "replay", letter_id)
    assert (code, said) == (1, "1 of 1 letter put back: 1 failed again: ValueError: order 3 cannot be taken\n")
    code, said = ask(environment, "letters", "show", letter_id)
    assert code == 0
    assert "4 attempts" in said

    def about_it() -> list[dict[str, Any]]:
        return [line for line in worker.lines if "order 3 cannot be taken" in line["message"]]

    until(lambda: len(about_it()) >= 4, "the lines of the log")
    told = about_it()
    assert [line["message"].partition(" of 2 at event")[0].partition(": event")[0] for line in told] == [
        "shop.orders.placed.order_placed: attempt 1",
        "dead-lettered (failed)",
        "shop.orders.placed.order_placed: attempt 1",
        "dead-lettered (failed)",
    ]
    places = {(line["process"].rpartition(".")[2], line["release"], line["service"]) for line in told}
    assert places == {(str(worker.process.pid), "v42", "events 0")}
    assert ask(environment, "letters", "purge", "--all") == (0, "1 of 1 letter deleted\n")
    assert ask(environment, "letters", "list") == (0, "there is no dead letter\n")


@pytest.mark.parametrize("bad", [("orders", "{"), ("ws:user:7", "{}"), ("two words", "{}")])
def test_a_publication_that_cannot_be_is_refused(environment: Environment, bad: tuple[str, str]) -> None:
    """No JSON, a broadcast's channel, a channel with a space: nothing is stored; exit code 2, with --force 1."""
    code, said = ask(environment, "publish", *bad)
    assert code == 2
    assert said.startswith("python -m worker publish: ")
    code, said = ask(environment, "publish", *bad, "--force")
    assert code == 1
    assert said.startswith("nothing was published: ")


async def test_a_kill_loses_nothing_and_repeats_nothing(redis: PrivateServer, environment: Environment) -> None:
    """kill -9 in the middle of a burst, events published while nobody is there, a new worker: each order once."""
    with WorkerProcess(environment) as worker:
        worker.said("worker started")
        await publish(redis, range(300))
        until(lambda: len(feed(redis)) > 20, "some broadcasts")
        worker.kill()
    await publish(redis, range(300, 400))
    with WorkerProcess(environment) as worker:
        until(lambda: len(feed(redis)) >= 400, "all broadcasts")
        assert worker.stop() == 0
    assert numbers(redis) == list(range(400))


async def test_another_worker_takes_over(redis: PrivateServer, environment: Environment) -> None:
    """Of two workers one handles events; when it is killed the other goes on where it was."""
    with WorkerProcess(environment) as first, WorkerProcess(environment) as second:
        first.said("worker started")
        second.said("worker started")
        await publish(redis, range(50))
        until(lambda: len(feed(redis)) == 50, "the first broadcasts")
        holder = redis.ask("GET", "{cachebus}:lease:0").decode()
        active, standby = (first, second) if f".{first.process.pid}/" in holder else (second, first)
        active.kill()
        await publish(redis, range(50, 100))
        until(lambda: len(feed(redis)) >= 100, "the broadcasts of the other worker")
        assert standby.stop() == 0
    assert numbers(redis) == list(range(100))


async def test_redis_restarted_in_the_middle_loses_nothing(
    redis: PrivateServer, worker: WorkerProcess, environment: Environment
) -> None:
    """Redis is killed and comes back with its append-only file: the same worker goes on, each order once."""
    redis.ask("CONFIG", "SET", "appendfsync", "always")
    await publish(redis, range(200))
    until(lambda: len(feed(redis)) > 20, "some broadcasts")
    redis.restart()
    until(lambda: ask(environment, "check", "--ready")[0] == 0, "the worker to be ready")
    await publish(redis, range(200, 300))
    until(lambda: len(feed(redis)) >= 300, "all broadcasts")
    assert numbers(redis) == list(range(300))
    assert worker.stop() == 0


async def test_a_drain_finishes_what_is_under_way(redis: PrivateServer, worker: WorkerProcess, tmp_path: Path) -> None:
    """SIGTERM while a handler runs: its event is finished and committed, the lease given back, the exit code 0."""
    await publish(redis, range(700, 701), "slow-orders")  # takes 700 ms
    until((tmp_path / "weighing-700").exists, "the handler to begin")
    assert worker.stop() == 0
    assert numbers(redis) == [700]
    assert redis.ask("GET", "{cachebus}:lease:0") is None


async def test_a_drain_that_takes_too_long_hands_back(
    redis: PrivateServer, environment: Environment, tmp_path: Path
) -> None:
    """What is not finished within DRAIN_BUDGET is left to the next worker, which takes it at once, and handled once."""
    with WorkerProcess({**environment, "DRAIN_BUDGET": "200ms"}) as worker:
        await publish(redis, range(3000, 3001), "slow-orders")
        until((tmp_path / "weighing-3000").exists, "the handler to begin")
        assert worker.stop() == 0
        worker.said("drain budget exceeded")
    assert numbers(redis) == []
    with WorkerProcess(environment) as worker:
        until(lambda: numbers(redis), "the next worker to handle it")
        assert worker.stop() == 0
    assert numbers(redis) == [3000]


async def test_tail_shows_what_is_asked_for(
    redis: PrivateServer, worker: WorkerProcess, environment: Environment
) -> None:
    """The last few and then each as it comes, filtered; Ctrl-C ends it with 0. Events likewise."""
    await publish(redis, range(3))
    until(lambda: len(feed(redis)) == 3, "the broadcasts")
    with WorkerProcess(environment, "tail", "--last", "2", "--topic", "user:*", "--type", "order.placed") as tail:
        until(lambda: tail.text.count("\n") == 2, "the last two")
        await publish(redis, range(3, 4))
        until(lambda: tail.text.count("\n") == 3, "the new one")
        tail.signal(signal.SIGINT)
        assert tail.ended() == 0
        assert '"number":0' not in tail.text
        when = r"20\d\d-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d"
        assert all(re.match(rf"{when}  user:7  order\.placed  ", line) for line in tail.text.splitlines())
    with WorkerProcess(environment, "tail", "--events", "--last", "1", "--topic", "orders", "--json") as tail:
        until(lambda: tail.text, "the last event")
        tail.signal(signal.SIGINT)
        assert tail.ended() == 0
        assert json.loads(tail.text) == {"customer": 7, "number": 3}


async def test_stats_count_what_is_there(redis: PrivateServer, worker: WorkerProcess, environment: Environment) -> None:
    """Workers, events, what waits: for people, and as JSON."""
    await publish(redis, range(5))
    until(lambda: len(feed(redis)) == 5, "the broadcasts")
    until(lambda: ask(environment, "check", "--ready")[0] == 0, "the worker to be ready")
    code, said = ask(environment, "stats", "--json")
    assert code == 0
    stats = json.loads(said)
    assert [entry["state"] for entry in stats["workers"]] == ["ready"]
    (shard,) = stats["backlog"]["shards"]
    assert (shard["stored"], shard["waiting"], shard["holder"]) == (5, 0, stats["workers"][0]["name"])
    assert (stats["backlog"]["feed"], stats["backlog"]["ledger"]) == (5, 2)  # a tag and a key
    code, said = ask(environment, "stats")
    assert code == 0
    assert "0 events wait" in said


async def test_two_shards_keep_order_by_key(redis: PrivateServer, environment: Environment) -> None:
    """With BUS_SHARDS=2 and two workers each event is handled once, and those of one key in order."""
    environment |= {"BUS_SHARDS": "2"}
    with WorkerProcess(environment) as first, WorkerProcess(environment) as second:
        first.said("worker started")
        second.said("worker started")
        async with cache_of(redis) as cache:
            bus = Bus(cache.client, shards=2)
            for number in range(200):
                await bus.publish("orders", {"customer": number % 5, "number": number}, key=str(number % 5))
        until(lambda: len(feed(redis)) >= 200, "all broadcasts")
        assert (first.stop(), second.stop()) == (0, 0)
    handled = [(record["topic"], record["data"]["number"]) for record in feed(redis)]
    assert Counter(number for _, number in handled) == Counter(range(200))
    for customer in range(5):
        of_customer = [number for topic, number in handled if topic == f"user:{customer}"]
        assert of_customer == sorted(of_customer)


def test_a_channel_that_must_be_signed_takes_nothing_else(redis: PrivateServer, environment: Environment) -> None:
    """With keys set, what `publish` signs is handled; a record anybody could write is a dead letter."""
    key = "whsec_" + base64.b64encode(b"twenty-four bytes or more").decode()
    environment |= {"BUS_SIGNING_KEYS": key, "BUS_SIGNED_CHANNELS": "orders=require"}
    with WorkerProcess(environment) as worker:
        redis.ask("XADD", "{cachebus}:events:0", "*", "channel", "orders", "payload", '{"customer": 7, "number": 1}')
        assert ask(environment, "publish", "orders", '{"customer": 7, "number": 2}')[0] == 0
        until(lambda: numbers(redis) == [2], "the signed event")
        assert "signature: there is none" in ask(environment, "letters", "list")[1]
        assert worker.stop() == 0
        assert key not in worker.text


async def test_a_process_that_hangs_ends_all_the_same(
    redis: PrivateServer, environment: Environment, tmp_path: Path
) -> None:
    """A handler that blocks the process does not keep it: a while after the budget it says where it hangs, and ends."""
    with WorkerProcess({**environment, "DRAIN_BUDGET": "100ms"}) as worker:
        await publish(redis, range(3600, 3601), "stuck-orders")
        until((tmp_path / "stuck").exists, "the handler to begin")
        assert worker.stop() == 1
        assert "order_stuck" in worker.text
