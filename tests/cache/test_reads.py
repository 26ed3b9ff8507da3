"""What a read does: memory, Redis, or one load, and what each costs."""

from __future__ import annotations

import asyncio
import datetime
from dataclasses import dataclass
from decimal import Decimal
from uuid import UUID

import msgspec
import pytest

from cachebus import UNCHANGED, Cache, ConfigurationError, NotCacheable, Policy, previous
from cachebus.clock import now_s
from cachebus.redis.keyspace import Names
from cachebus.testing import FakeClock
from cachebus.testing.server import PrivateServer
from tests.conftest import Connect
from tests.support.sent_commands import Sent
from tests.support.waiting import until


class Summary(msgspec.Struct, frozen=True):
    """A result."""

    user_id: int
    total: Decimal
    at: datetime.datetime
    id: UUID


async def test_a_value_comes_back_as_its_type_from_memory_and_from_redis(connect: Connect) -> None:
    """Struct, Decimal, datetime and UUID are what they were, not dictionaries and strings."""
    expected = Summary(7, Decimal("1.10"), datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC), UUID(int=7))
    one, two = await connect(), await connect()
    for cache in (one, two):

        @cache.view("summary:{user_id}", ttl="1m")
        async def summary(user_id: int) -> Summary:
            return expected

    assert await one.views["summary:{user_id}"](7) == expected
    assert await one.views["summary:{user_id}"](7) == expected
    assert await two.views["summary:{user_id}"](7) == expected
    assert two.stats().totals.l2_hits == 1


async def test_none_is_a_value_with_a_ttl_of_its_own(cache: Cache, server: PrivateServer, namespace: str) -> None:
    """`None` is not computed again, and lives as long as `negative_ttl` says."""
    loads = 0

    @cache.view("nothing:{n}", ttl="1h", policy=Policy(negative_ttl="10s"))
    async def nothing(n: int) -> int | None:
        nonlocal loads
        loads += 1

    assert await nothing(1) is None
    assert await nothing(1) is None
    assert loads == 1
    (key,) = server.ask("KEYS", f"{Names(namespace).entries}*")
    assert 0 < server.ask("PTTL", key) <= 10_000


async def test_a_read_costs_what_is_promised(connect: Connect, server: PrivateServer) -> None:
    """No command for a hit in memory, one round trip for one in Redis, two for a miss and its fill."""
    one, two = await connect(), await connect()
    for cache in (one, two):

        @cache.view("cost:{n}", ttl="1s")
        async def cost(n: int) -> int:
            return n

    for cache in (one, two):  # scripts known, wake-ups heard
        await cache.views["cost:{n}"](0)
    assert one.reader is not None
    assert two.reader is not None
    with Sent(server, "cost:1") as sent:
        await one.views["cost:{n}"](1)
        assert sent.count() == 2
        await one.views["cost:{n}"](1)
        assert sent.count() == 0
        await two.views["cost:{n}"](1)
        assert sent.count() == 1


async def test_an_old_value_is_served_once_while_it_is_renewed(cache: Cache) -> None:
    """Within the stale window nobody waits, and one caller's renewal is enough."""
    loads = 0

    @cache.view("stale:{n}", ttl="300ms", stale="1m")
    async def value(n: int) -> int:
        nonlocal loads
        loads += 1
        return loads

    assert await value(1) == 1
    held = cache.reader.memory.held[value.key(1)]  # type: ignore[union-attr]
    await until(lambda: held.fresh_until < now_s(), "the end of the TTL")
    assert await value(1) == 1
    await until(lambda: loads >= 2, "the renewal")
    assert cache.stats().totals.stale >= 1


async def test_an_old_value_stands_in_for_an_error(cache: Cache) -> None:
    """`stale_if_error`: a valid value is served when the load fails, not otherwise."""
    broken = False

    @cache.view("fallback:{n}", ttl="20ms", stale_if_error="1m")
    async def value(n: int) -> str:
        if broken:
            raise OSError("the database is away")
        return "good"

    assert await value(1) == "good"
    broken = True
    held = cache.reader.memory.held[value.key(1)]  # type: ignore[union-attr]
    await until(lambda: held.fresh_until < now_s(), "the end of the TTL")
    assert await value(1) == "good"
    await value.invalidate(1)
    with pytest.raises(OSError, match="away"):
        await value(1)


async def test_a_loader_may_say_that_nothing_changed(cache: Cache) -> None:
    """`UNCHANGED` keeps the previous value as if it were loaded now."""
    asked: list[object] = []

    @cache.view("same:{n}", ttl="1m")
    async def value(n: int) -> str:
        asked.append(previous())
        return "first" if len(asked) == 1 else UNCHANGED

    assert await value(1) == "first"
    assert await value.refresh(1) == "first"
    assert asked == [None, "first"]
    assert await value(1) == "first"
    assert len(asked) == 2


async def test_what_a_view_does_not_keep_is_served_and_loaded_again(connect: Connect) -> None:
    """`keep=` looks at each loaded value; what was stored before stays until its window ends."""
    one, two = await connect(), await connect()
    answers = [[], [], [1], []]
    for cache in (one, two):

        @cache.view("rows", ttl="1m", policy=Policy(keep=bool))
        async def rows() -> list[int]:
            return answers.pop(0)

    first, second = one.views["rows"], two.views["rows"]
    assert [await first(), await second(), await first(), await second(), await first()] == [[], [], [1], [1], [1]]
    assert (first.stats.not_kept, second.stats.not_kept, answers) == (1, 1, [[]])
    assert await first.refresh() == []
    assert first.stats.not_kept == 2


async def test_a_failing_keep_does_not_lose_the_value(cache: Cache, caplog: pytest.LogCaptureFixture) -> None:
    """As a failing ttl: served, not stored, reported."""

    @cache.view("rows", ttl="1m", policy=Policy(keep=lambda rows: rows["nothing"]))
    async def rows() -> dict[str, int]:
        return {}

    assert [await rows(), await rows()] == [{}, {}]
    assert rows.stats.uncacheable == 2
    assert "KeyError" in caplog.text


async def test_ttl_and_tags_may_depend_on_the_value(cache: Cache, server: PrivateServer, namespace: str) -> None:
    """A tag that only the value knows invalidates it."""
    loads = 0

    @cache.view("order:{n}", ttl=lambda order: "5s" if order == "open" else "1h", tags=lambda order: [f"state:{order}"])
    async def order(n: int) -> str:
        nonlocal loads
        loads += 1
        return "open"

    assert await order(1) == "open"
    (key,) = server.ask("KEYS", f"{Names(namespace).entries}*")
    assert 0 < server.ask("PTTL", key) <= 5_000
    await cache.invalidate(tags=["state:closed"])
    assert (await order(1), loads) == ("open", 1)
    await cache.invalidate(tags=["state:open"])
    assert (await order(1), loads) == ("open", 2)


async def test_a_load_over_its_hard_limit_raises_and_goes_on(cache: Cache) -> None:
    """The caller is free, the load is not lost."""
    gate = asyncio.Event()

    @cache.view("hard:{n}", ttl="1m", policy=Policy(hard_timeout="20ms"))
    async def slow(n: int) -> int:
        await gate.wait()
        return n

    with pytest.raises(TimeoutError, match="hard:1"):
        await slow(1)
    gate.set()
    await until(lambda: cache.stats().totals.loads == 1, "the end of the load")
    assert await slow(1) == 1


async def test_a_load_over_its_hard_limit_leaves_the_old_value_where_a_window_allows_it() -> None:
    """It is at hand, and `stale_if_error` allows it: nobody gets an error."""
    gate, loads, memory = asyncio.Event(), 0, Cache.memory()
    gate.set()

    @memory.view("late:{n}", ttl="1m", stale_if_error="1h", policy=Policy(hard_timeout="20ms"))
    async def slow(n: int) -> int:
        nonlocal loads
        loads += 1
        await gate.wait()
        return loads

    async with memory:
        with FakeClock() as clock:
            assert await slow(1) == 1
            clock.advance("2m")
            gate.clear()
            assert await slow(1) == 1
            gate.set()
            await until(lambda: memory.stats().totals.loads == 2, "the end of the load")
            assert await slow(1) == 2


async def test_what_a_caller_does_to_a_result_changes_nothing_for_others(cache: Cache) -> None:
    """Lists are decoded afresh for each caller; frozen values are one object for all."""

    @cache.view("list:{n}", ttl="1m")
    async def numbers(n: int) -> list[int]:
        return [n]

    first = await numbers(1)
    first.append(99)
    assert await numbers(1) == [1]
    (await numbers(1)).clear()
    assert await numbers(1) == [1]


async def test_a_changed_return_type_is_a_miss_not_an_error(connect: Connect) -> None:
    """A deploy that changes a result does not misread what the one before stored."""
    old, new = await connect(), await connect()

    @old.view("typed:{n}", ttl="1m")
    async def before(n: int) -> int:
        return n

    @new.view("typed:{n}", ttl="1m")
    async def after(n: int) -> str:
        return str(n)

    assert await before(1) == 1
    assert await after(1) == "1"
    assert await before(1) == 1


@pytest.mark.parametrize(
    "junk", [b"", b"x", b"C2" + b"9" * 60, b"C2" + b"0" * 32 + b"9" * 16 + b"\xff\xff", b"\x00" * 100]
)
async def test_what_is_no_entry_of_ours_is_a_miss(
    connect: Connect, server: PrivateServer, namespace: str, junk: bytes
) -> None:
    """Foreign, cut or damaged bytes under our name are loaded over, never an error."""
    one, two = await connect(), await connect()
    for cache in (one, two):

        @cache.view("junk:{n}", ttl="1m")
        async def value(n: int) -> int:
            return n

    assert await one.views["junk:{n}"](1) == 1
    (key,) = server.ask("KEYS", f"{Names(namespace).entries}*")
    server.ask("SET", key, junk, "PX", 60_000)
    assert await two.views["junk:{n}"](1) == 1
    assert two.stats().totals.loads == 1


async def test_plain_values_and_many_at_once(cache: Cache) -> None:
    """get, set, delete, get_many, get_or_load, get_or_load_many."""
    assert await cache.get("a", "nothing") == "nothing"
    await cache.set("a", {"n": [1, None, "x"]}, "1m", tags=["t"])
    assert await cache.get("a") == {"n": [1, None, "x"]}
    await cache.delete("a")
    assert await cache.get("a") is None
    asked: list[list[str]] = []

    async def load(keys: list[str]) -> dict[str, int]:
        asked.append(keys)
        return {key: len(key) for key in keys if key != "none"}

    assert await cache.get_or_load_many(["x", "yy", "none"], load) == {"x": 1, "yy": 2}
    assert await cache.get_or_load_many(["x", "yy", "zzz"], load) == {"x": 1, "yy": 2, "zzz": 3}
    assert asked == [["x", "yy", "none"], ["zzz"]]
    assert await cache.get_many(["x", "none"]) == {"x": 1}
    assert await cache.get_or_load("x", lambda: asyncio.sleep(0, 99)) == 1


class Secret(msgspec.Struct, frozen=True):
    """Carries what must never be stored."""

    user_id: int
    api_key: str


@dataclass
class Session:
    """An object of a request."""

    token: str


async def test_what_cannot_work_is_refused_by_name_before_anything_is_stored(
    cache: Cache, server: PrivateServer, namespace: str
) -> None:
    """View and field are named, at decoration where that is possible."""

    def declare(template: str, **options: object):  # type: ignore[no-untyped-def]
        async def function(user_id: int) -> int:
            return user_id

        return lambda: cache.view(template, **options)(function)

    refusals = {
        "unknown field": (declare("a:{nobody}", ttl="1m"), "nobody"),
        "forgotten parameter": (declare("b:all", ttl="1m"), "user_id"),
        "no ttl": (declare("c:{user_id}", ttl="0s"), "ttl"),
        "for ever": (declare("d:{user_id}", ttl="999d"), "ttl"),
        "empty tag": (declare("e:{user_id}", ttl="1m", tags=[""]), "tag"),
        "wrong tag": (declare("f:{user_id}", ttl="1m", tags=["{x}"]), "tag"),
        "identity not in key": (declare("g:{user_id}", ttl="1m", identity="tenant"), "identity"),
    }
    for what, (attempt, named) in refusals.items():
        with pytest.raises(ConfigurationError, match=named):
            attempt()
        assert what

    async def secret(user_id: int) -> Secret:
        return Secret(user_id, "k")

    with pytest.raises(ConfigurationError, match="api_key"):
        cache.view("secret:{user_id}", ttl="1m")(secret)
    with pytest.raises(NotCacheable, match="password"):
        await cache.set("user", {"password": "x"})

    async def of_session(session: Session) -> int:
        return 1

    with pytest.raises(ConfigurationError, match="Session"):
        cache.view("of:{session}", ttl="1m")(of_session)
    assert server.ask("KEYS", f"{Names(namespace).entries}*") == []


async def test_a_call_without_identity_is_never_shared(cache: Cache, server: PrivateServer, namespace: str) -> None:
    """An anonymous call loads, and stores nothing anyone else could get."""
    loads = 0

    @cache.view("mine:{user_id}", ttl="1m")
    async def mine(user_id: int | None) -> int:
        nonlocal loads
        loads += 1
        return loads

    assert [await mine(None), await mine(None)] == [1, 2]
    assert server.ask("KEYS", f"{Names(namespace).entries}*") == []
    assert cache.stats().totals.bypassed == 2


async def test_the_cache_can_be_switched_off(connect: Connect) -> None:
    """CACHE_ENABLED=false: every read loads."""
    cache = await connect(enabled=False)
    loads = 0

    @cache.view("off:{n}", ttl="1m")
    async def value(n: int) -> int:
        nonlocal loads
        loads += 1
        return loads

    assert [await value(1), await value(1)] == [1, 2]


async def test_the_sampler_finds_a_change_that_nobody_announced(
    connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    """A write path that forgets its event is named in the log and counted."""
    cache = await connect(consistency_sample=16)
    truth = 1

    @cache.view("truth:{n}", ttl="1h")
    async def value(n: int) -> int:
        return truth

    assert await value(1) == 1
    truth = 2
    for _ in range(40):
        assert await value(1) == 1
    await until(lambda: cache.stats().totals.stale_detected, "the finding")
    assert "truth:1" in caplog.text
