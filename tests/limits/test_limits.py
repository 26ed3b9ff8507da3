"""The limiter as its users see it: decisions, contracts, memory of refusals, several limits at once, bad input."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from statistics import median

import pytest

from cachebus import Cache
from cachebus.errors import ConfigurationError
from cachebus.limits.limiter import RateLimiter
from cachebus.limits.rules import KEPT, Limit, RateLimited, RememberedRefusals
from cachebus.limits.server_backend import ServerLimits
from cachebus.redis.client import Client
from cachebus.redis.keyspace import key_slot
from cachebus.testing.server import PrivateCluster, PrivateServer
from tests.support.fake_server import fake_client
from tests.support.server_watch import WatchedServer
from tests.support.waiting import until

RULES = [("sliding_window", 3), ("sliding_window", 70), ("token_bucket", 3), ("fixed_window", 3)]


@pytest.fixture
def limiter(client: Client) -> RateLimiter:
    """Patient, so that a busy machine decides no test."""
    return RateLimiter(client, patience="5s")


@pytest.fixture(params=["server", "process"])
async def either(request: pytest.FixtureRequest, client: Client) -> AsyncIterator[RateLimiter]:
    """Counters on a server, and those of a process without one."""
    async with Cache.memory() as cache:
        yield RateLimiter(client if request.param == "server" else cache, patience="5s")


@pytest.fixture
def watched(client: Client) -> WatchedServer:
    client.store = WatchedServer(client.store)
    return client.store


def refusals(limiter: RateLimiter) -> RememberedRefusals:
    """Return what a limiter over a server remembers."""
    assert isinstance(limiter._part.made, ServerLimits)
    return limiter._part.made._refusals


async def contents(client: Client) -> dict[bytes, tuple[bytes, int]]:
    """Return everything a test's namespace holds, with when it goes."""
    keys = await client.store.call("KEYS", f"{client.names.namespace}:*")
    return {key: (await client.store.call("DUMP", key), await client.store.call("PEXPIRETIME", key)) for key in keys}


async def test_the_specs_call_unpacks_to_allowed_and_remaining(either: RateLimiter) -> None:
    """Five logins in five minutes pass, the sixth does not; the result is a pair that carries more."""
    for remaining in (4, 3, 2, 1, 0):
        assert tuple(await either.check("login:192.168.1.1", limit=5, window=300, strategy="sliding_window")) == (
            True,
            remaining,
        )
    refused = await either.check("login:192.168.1.1", limit=5, window=300, strategy="sliding_window")
    allowed, remaining = refused
    assert (allowed, remaining) == (False, 0)
    assert not refused
    assert refused.limit == 5
    assert refused.policy == Limit(5, 300)
    assert refused.retry_after is not None
    assert 0 < refused.reset_after <= refused.retry_after <= 300


@pytest.mark.parametrize(("strategy", "limit"), RULES)
async def test_a_refusal_changes_nothing(client: Client, limiter: RateLimiter, strategy: str, limit: int) -> None:
    """However often it is refused, a request leaves the counter, its TTL and everybody's quota as they were."""
    await limiter.check("k", limit=limit, window=300, strategy=strategy, cost=limit - 1)
    before = await contents(client)
    for _ in range(3):
        assert not await limiter.check("k", limit=limit, window=300, strategy=strategy, cost=2)
    assert not await RateLimiter(client, patience="5s").check("k", limit=limit, window=300, strategy=strategy, cost=2)
    assert await contents(client) == before
    assert await limiter.check("k", limit=limit, window=300, strategy=strategy)


@pytest.mark.parametrize("strategy", ["sliding_window", "token_bucket", "fixed_window"])
async def test_a_peek_counts_nothing(client: Client, limiter: RateLimiter, strategy: str) -> None:
    """Looking says what a check would decide and what is left, and writes nothing, not even when refused."""
    assert (await limiter.peek("k", limit=2, window=60, strategy=strategy)).remaining == 2
    assert await contents(client) == {}
    await limiter.check("k", limit=2, window=60, strategy=strategy, cost=2)
    before = await contents(client)
    assert not await limiter.peek("k", limit=2, window=60, strategy=strategy)
    assert await contents(client) == before


async def test_a_decision_is_one_round_trip_and_one_script(limiter: RateLimiter, watched: WatchedServer) -> None:
    """Decision, remaining, reset and retry come with one script, for one limit and for three."""
    await limiter.check("a", limit=5, window=60)
    await limiter.check_all("b", {"s": Limit(5, "1s"), "m": Limit(50, "1m"), "h": Limit(500, "1h")})
    assert [verb for verb, _ in watched.commands] == ["limits/check", "limits/check"]


async def test_fifty_at_once_share_one_limit_exactly(either: RateLimiter) -> None:
    """Requests that arrive together get exactly the limit between them, each its own `remaining`."""
    results = await asyncio.gather(*[either.check("k", limit=20, window=60) for _ in range(50)])
    assert sorted(result.remaining for result in results if result) == list(range(20))


async def test_every_counter_has_a_ttl_that_covers_its_window(client: Client, limiter: RateLimiter) -> None:
    """No key is left for ever, and none goes while it counts (a token bucket lives until it would be full again)."""
    for strategy, limit in RULES:
        await limiter.check("k", limit=limit, window=300, strategy=strategy, cost=limit)
    keys = await client.store.call("KEYS", f"{client.names.namespace}:*")
    assert len(keys) == 4
    for key in keys:
        assert await client.store.call("PTTL", key) > (0 if key.endswith(b"fixed") else 299_000)


async def test_a_burst_of_one_is_not_forgotten_by_a_zero_ttl(either: RateLimiter) -> None:
    """A bucket that refills within a millisecond still refuses what it must: its key does not expire at once."""
    results = [await either.check("k", limit=1, window="1h", strategy="token_bucket") for _ in range(5)]
    assert [result.allowed for result in results] == [True, False, False, False, False]


async def test_a_changed_strategy_never_meets_anothers_data(either: RateLimiter) -> None:
    """One key checked with each strategy, again and again, is never an error (WRONGTYPE)."""
    for _ in range(2):
        for strategy, limit in RULES:
            result = await either.check("k", limit=limit, window=60, strategy=strategy)
            assert result.source != "memory"


async def test_a_changed_limit_holds_although_a_refusal_is_remembered(limiter: RateLimiter) -> None:
    """A refusal stands for the limit it was made under; a higher one is asked for anew, at once."""
    for _ in range(3):
        await limiter.check("k", limit=1, window=60)
    assert (await limiter.check("k", limit=1, window=60)).source == "memory"
    assert await limiter.check("k", limit=2, window=60)


async def test_memory_per_counter_is_small_and_constant(client: Client, limiter: RateLimiter) -> None:
    """Bucket and fixed window stay under 128 bytes, sub-windows under 200, a full log of 64 under 1.7 KB.

    Of most counters: now and then the server's allocator gives one a larger block.
    """
    used: dict[bytes, list[int]] = {b"bucket": [], b"fixed": [], b"windows": [], b"log": []}
    for user in range(101, 108):
        for strategy, limit in (("token_bucket", 10**6), ("fixed_window", 10**6), ("sliding_window", 10**6)):
            for _ in range(10):
                await limiter.check(f"login:192.168.100.{user}", limit=limit, window=3600, strategy=strategy, cost=999)
        await limiter.check(f"login:192.168.100.{user}", limit=64, window=3600, cost=64)
    for key in await client.store.call("KEYS", f"{client.names.namespace}:*"):
        used[key.rpartition(b":")[2]].append(await client.store.call("MEMORY", "USAGE", key))
    for kind, most in {b"bucket": 128, b"fixed": 128, b"windows": 200, b"log": 1700}.items():
        assert median(used[kind]) <= most


async def test_a_cost_beyond_the_limit_can_never_pass_and_says_so(either: RateLimiter) -> None:
    """`retry_after` is None, not a time after which it would be refused again."""
    for strategy in ("sliding_window", "token_bucket", "fixed_window"):
        result = await either.check("k", limit=5, window=60, strategy=strategy, cost=6)
        assert (result.allowed, result.remaining, result.retry_after) == (False, 5, None)


# -- refusals that stand -----------------------------------------------------------------------------------------------


async def test_a_refused_key_costs_no_command_until_its_time(limiter: RateLimiter, watched: WatchedServer) -> None:
    """An attacker who goes on and on is refused from memory, with the time that is left."""
    for _ in range(2):
        refused = await limiter.check("k", limit=1, window=300)
    watched.commands.clear()
    for _ in range(100):
        again = await limiter.check("k", limit=1, window=300)
        assert again.source == "memory"
        assert refused.retry_after is not None
        assert again.retry_after is not None
        assert again.retry_after < refused.retry_after
    assert watched.commands == []
    assert limiter.counts["default", "memory"] == 100


async def test_a_remembered_refusal_ends_when_it_said(limiter: RateLimiter) -> None:
    """After `retry_after` the server is asked again, and lets the request through."""
    while (refused := await limiter.check("k", limit=1, window=0.05)).allowed or refused.source != "memory":
        pass
    assert refused.retry_after is not None
    await asyncio.sleep(refused.retry_after)
    assert (await limiter.check("k", limit=1, window=0.05)).source == "server"


async def test_a_larger_request_is_told_its_own_wait(limiter: RateLimiter) -> None:
    """Three units need longer than the one that is refused; their `retry_after` is not that of the one."""
    for _ in range(3):
        await limiter.check("k", limit=3, window=60)
        await asyncio.sleep(0.02)
    one = await limiter.check("k", limit=3, window=60)
    three = await limiter.check("k", limit=3, window=60, cost=3)
    exact = await limiter.peek("k", limit=3, window=60, cost=3)
    assert one.retry_after is not None
    assert three.retry_after is not None
    assert exact.retry_after is not None
    assert exact.retry_after <= three.retry_after


async def test_a_request_that_can_never_pass_says_so_while_another_is_refused(limiter: RateLimiter) -> None:
    """A remembered refusal of one unit gives no time after which five of three would pass."""
    for _ in range(4):
        await limiter.check("k", limit=3, window=60)
    never = await limiter.check("k", limit=3, window=60, cost=5)
    assert (never.allowed, never.retry_after) == (False, None)


async def test_a_smaller_request_is_asked_for_although_a_larger_was_refused(either: RateLimiter) -> None:
    """A refusal of five units does not stand against one."""
    await either.check("k", limit=5, window=60, cost=3)
    assert not await either.check("k", limit=5, window=60, cost=5)
    assert await either.check("k", limit=5, window=60, cost=1)


def test_the_memory_of_refusals_is_bounded() -> None:
    """Whoever sends from a million addresses fills no memory: the refusals least recently used go."""
    refused, remembered = Limit(1, 60), RememberedRefusals()
    for number in range(KEPT + 100):
        remembered.remember(f"k{number}", refused, 1, 0, (0, 60_000_000, 60_000_000))
    assert len(remembered) == KEPT
    assert remembered.find("k0", refused, 1, 1) is None
    assert remembered.find(f"k{KEPT}", refused, 1, 1) is not None


# -- reset -------------------------------------------------------------------------------------------------------------


async def test_reset_forgets_one_key_whatever_the_strategy_and_no_other(either: RateLimiter) -> None:
    """`login:1` is free again, also here where its refusal is remembered; `login:192.168.1.1` is not."""
    for key in ("login:1", "login:192.168.1.1"):
        for strategy, limit in RULES:
            for _ in range(2):
                await either.check(key, limit=limit, window=300, strategy=strategy, cost=limit)
    assert await either.reset("login:1") is True
    assert await either.reset("login:1") is False
    for strategy, limit in RULES:
        assert await either.check("login:1", limit=limit, window=300, strategy=strategy, cost=limit)
        assert not await either.check("login:192.168.1.1", limit=limit, window=300, strategy=strategy)


async def test_a_reset_elsewhere_reaches_the_memory_of_this_process(server: PrivateServer, client: Client) -> None:
    """Whom another process unlocks is let in here too, although this one remembers the refusal."""
    here = RateLimiter(client, patience="5s")
    for _ in range(3):
        await here.check("k", limit=1, window=300)
    assert (await here.check("k", limit=1, window=300)).source == "memory"
    async with Client(server.url, namespace=client.names.namespace) as other:
        await RateLimiter(other).reset("k")

    async def let_in() -> bool:
        return bool(await here.check("k", limit=1, window=300))

    await until(let_in)


async def test_a_reset_is_in_force_here_when_it_returns(client: Client, limiter: RateLimiter) -> None:
    """Whoever resets does not wait for the news of his own reset to come around."""
    for _ in range(3):
        await limiter.check("k", limit=1, window=300)
    await client.subscriptions.close()
    await limiter.reset("k")
    assert await limiter.check("k", limit=1, window=300)


async def test_a_process_that_was_deaf_for_a_moment_trusts_no_refusal(
    server: PrivateServer, client: Client, limiter: RateLimiter
) -> None:
    """Resets may have been missed while the subscription was down, so what is remembered is asked for again."""
    for _ in range(3):
        await limiter.check("k", limit=1, window=300)
    assert len(refusals(limiter)) == 1
    server.ask("CLIENT", "KILL", "TYPE", "pubsub")
    await until(lambda: len(refusals(limiter)) == 0)
    assert (await limiter.check("k", limit=1, window=300)).source == "server"


async def test_a_refusal_asked_for_before_a_reset_is_not_remembered_after_it(client: Client) -> None:
    """A reply that crosses a reset on its way does not lock out whom the reset has freed."""
    limiter = RateLimiter(client, patience="5s")
    for _ in range(3):
        await limiter.check("other", limit=1, window=300)  # resets are heard from now on
    await limiter.check("k", limit=1, window=300)
    server_run = client.store.run

    async def slow_reply(*args: object, **options: object) -> object:
        reply = await server_run(*args, **options)  # type: ignore[arg-type]
        await limiter.reset("k")
        return reply

    client.store.run = slow_reply  # type: ignore[method-assign,assignment]
    assert not await limiter.check("k", limit=1, window=300)
    client.store.run = server_run  # type: ignore[method-assign]
    assert await limiter.check("k", limit=1, window=300)


# -- several limits ----------------------------------------------------------------------------------------------------


async def test_several_limits_are_taken_together_or_not_at_all(client: Client, limiter: RateLimiter) -> None:
    """A request that one limit refuses is counted against none of the others."""
    limits = {"second": Limit(2, "1m"), "hour": Limit(100, "1h", "token_bucket"), "day": Limit(500, "1d")}
    for _ in range(2):
        assert await limiter.check_all("api:7", limits)
    before = await contents(client)
    refused = await limiter.check_all("api:7", limits)
    assert not refused
    assert await contents(client) == before
    assert [each.remaining for each in refused.each] == [0, 98, 498]
    assert [each.allowed for each in refused.each] == [False, True, True]


async def test_the_result_of_several_limits_is_the_tightest(either: RateLimiter) -> None:
    """What is left is the least of all; the wait of a refusal is the longest of those that refuse."""
    limits = {"a": Limit(10, "1h", name="a"), "b": Limit(3, "1m", name="b"), "c": Limit(3, "1h", name="c")}
    assert (await either.check_all("k", limits, cost=2)).remaining == 1
    refused = await either.check_all("k", limits, cost=2)
    assert refused.policy.name == "c"
    assert refused.retry_after is not None
    assert refused.retry_after > 3000


async def test_each_of_several_limits_says_when_its_own_quota_comes_back(either: RateLimiter) -> None:
    """Both have just begun to count: a minute for one, an hour for the other."""
    result = await either.check_all("k", {"minute": Limit(5, "1m"), "hour": Limit(5, "1h")})
    assert [each.reset_after for each in result.each] == [60.0, 3600.0]


async def test_of_several_limits_only_the_one_that_refused_is_remembered(
    limiter: RateLimiter, watched: WatchedServer
) -> None:
    """The same request costs no command; nor does a larger one, refused before by the limit that let this one pass."""
    large, both = {"a": Limit(5, "1h")}, {"a": Limit(5, "1h"), "b": Limit(1, "1h")}
    assert await limiter.check_all("k", both)
    assert not await limiter.check_all("k", large, cost=5)
    assert not await limiter.check_all("k", both)
    watched.commands.clear()
    assert (await limiter.check_all("k", large, cost=5)).source == "memory"
    assert (await limiter.check_all("k", both)).source == "memory"
    assert watched.commands == []


async def test_limits_of_different_subjects_are_decided_in_one_slot(client: Client, limiter: RateLimiter) -> None:
    """An address and a user are checked together; each has its counter whatever it is combined with."""
    watched = WatchedServer(client.store)
    client.store = watched
    by_ip, by_user = Limit(10, "1m"), Limit(2, "1m")
    await limiter.check_all("login", {"ip:10.0.0.1": by_ip, "user:7": by_user})
    await limiter.check_all("login", {"ip:10.0.0.2": by_ip, "user:7": by_user})
    assert not await limiter.check_all("login", {"ip:10.0.0.3": by_ip, "user:7": by_user})
    assert (await limiter.check_all("login", {"ip:10.0.0.3": by_ip})).remaining == 9
    assert all(len({key_slot(key) for key in keys}) == 1 for _, keys in watched.commands)


@pytest.mark.parametrize("key", ["a}b", "}", "{", "{}", "x{y}z", "long" * 1000, "a b\n", "ü"])
async def test_no_key_can_leave_its_slot_or_meet_another(client: Client, limiter: RateLimiter, key: str) -> None:
    """Braces, length and odd characters in what clients send neither split a script's keys nor mix two subjects."""
    watched = WatchedServer(client.store)
    client.store = watched
    assert await limiter.check_all(key, {"s": Limit(1, "1m"), key: Limit(1, "1h")})
    assert await limiter.check_all(key + "x", {"s": Limit(1, "1m"), key: Limit(1, "1h")})
    assert not await limiter.check_all(key, {"s": Limit(1, "1m"), key: Limit(1, "1h")})
    assert all(len({key_slot(name) for name in keys}) == 1 for _, keys in watched.commands if len(keys) > 1)
    assert all(len(name) < 500 for _, keys in watched.commands for name in keys)


async def test_a_cluster_serves_every_verb() -> None:
    """On three nodes, where a script whose keys lie apart is an error, all of the limiter works."""
    with PrivateCluster.start("appendonly no") as cluster:
        async with Client(cluster.url) as client:
            limiter = RateLimiter(client, patience="5s")
            for subject in range(20):
                for strategy, limit in RULES:
                    assert await limiter.check(f"s{subject}", limit=limit, window=60, strategy=strategy)
                limits = {"a": Limit(1, "1m"), "b": Limit(5, "1h", "token_bucket")}
                assert await limiter.check_all(f"s{subject}", limits)
                assert not await limiter.check_all(f"s{subject}", limits)
                assert await limiter.reset(f"s{subject}", "a", "b")
                result = await limiter.check_all(f"s{subject}", limits)
                assert (result.allowed, result.source) == (True, "server")


async def test_every_strategy_runs_on_fakeredis() -> None:
    """Where no real server runs, development sees the same decisions."""
    limiter = RateLimiter(fake_client())
    for strategy, limit in RULES:
        results = [await limiter.check("k", limit=limit, window=300, strategy=strategy) for _ in range(limit + 1)]
        assert [result.remaining for result in results] == [*range(limit - 1, -1, -1), 0]
        assert [result.allowed for result in results] == [True] * limit + [False]
    assert await limiter.reset("k")
    assert await limiter.check_all("k", {"a": Limit(1, 60), "b": Limit(100, 60, "token_bucket")})


# -- the decorator -----------------------------------------------------------------------------------------------------


async def test_a_limited_function_does_not_run_beyond_its_limit(either: RateLimiter) -> None:
    """Calls of one user beyond the limit raise, with the decision; another user's run."""
    ran = []

    @either.limited("export:{user_id}", limit=2, window="1h", strategy="token_bucket")
    async def export(user_id: int, *, kind: str = "csv") -> str:
        ran.append(user_id)
        return kind

    assert await export(7) == "csv"
    assert await export(user_id=7, kind="pdf") == "pdf"
    with pytest.raises(RateLimited, match="more than 2 in 3600 s; try again in") as refused:
        await export(7)
    assert refused.value.retry_after > 0
    assert await export(8) == "csv"
    assert ran == [7, 7, 8]


async def test_a_decorator_that_could_never_work_fails_where_it_stands(either: RateLimiter) -> None:
    """An unknown parameter, a function that is not async and a cost beyond the limit are found at definition."""
    with pytest.raises(ConfigurationError, match="no call could ever run"):
        either.limited("k", limit=2, window=60, cost=3)
    with pytest.raises(ConfigurationError, match="nobody"):

        @either.limited("k:{nobody}", limit=2, window=60)
        async def one(user_id: int) -> None:
            """Never defined."""

    with pytest.raises(ConfigurationError, match="only an async function"):

        @either.limited("k", limit=2, window=60)
        def two() -> None:  # type: ignore[misc]
            """Never defined."""


# -- bad input ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"limit": 0}, "limit: 0 must be a whole number, at least 1"),
        ({"limit": -5}, "limit: -5"),
        ({"limit": 1.5}, "limit: 1.5"),
        ({"limit": True}, "limit: True"),
        ({"window": 0}, "window: 0 must be at least 1 ms"),
        ({"window": -1}, "window: -1"),
        ({"window": "soon"}, "window: 'soon' is not a duration"),
        ({"strategy": "leaky"}, "sliding_window, token_bucket, fixed_window"),
        ({"on_outage": "maybe"}, "open, closed, local"),
        ({"cost": 0}, "cost: 0"),
        ({"cost": 1.0}, "cost: 1.0"),
        ({"key": ""}, "key: ''"),
        ({"key": None}, "key: None"),
        ({"limit": 10**12, "window": "1d"}, "too large to be counted exactly"),
    ],
)
async def test_what_cannot_work_is_refused_by_name(
    limiter: RateLimiter, watched: WatchedServer, arguments: dict[str, object], says: str
) -> None:
    """Every bad argument is a ValueError that names it, before the server is asked anything."""
    good: dict[str, object] = {"key": "k", "limit": 1, "window": 60}
    await limiter.check(**good)  # type: ignore[arg-type]
    watched.commands.clear()
    with pytest.raises(ConfigurationError, match=says) as refused:
        await limiter.check(**(good | arguments))  # type: ignore[arg-type]
    assert isinstance(refused.value, ValueError)
    assert watched.commands == []


async def test_names_that_would_break_a_header_are_refused(either: RateLimiter) -> None:
    """What clients see of a rule can hold no quote and no line end; no limits at all is an error too."""
    with pytest.raises(ConfigurationError, match="name:"):
        Limit(1, 60, name='a"b')
    with pytest.raises(ConfigurationError, match="limits: there must be at least one"):
        await either.check_all("k", {})
