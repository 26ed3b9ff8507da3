"""What a process remembers of limits, to the microsecond: refusals that stand, and what the live page is told."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cachebus import Cache
from cachebus.errors import ConfigurationError, RateLimited
from cachebus.limits import local_counters, rules, seen, server_backend
from cachebus.limits.limiter import RateLimiter
from cachebus.limits.local_counters import LocalCounters
from cachebus.limits.rules import LARGEST_PRODUCT, Limit, RememberedRefusals, result_of
from cachebus.limits.seen import SLOT_US, RefusedLately, SeenLimits
from cachebus.redis.client import Client

ONE = Limit(1, "1m")
MINUTE = 60_000_000


def test_a_refusal_stands_until_the_very_microsecond_it_said() -> None:
    """A microsecond before, with the waits of then; at that moment it is asked again, and nothing is kept."""
    refusals = RememberedRefusals()
    refusals.remember("k", ONE, 1, 1_000, (0, 500, 700))
    assert refusals.find("k", ONE, 1, 1_400) == (0, 100, 300)
    assert refusals.find("k", ONE, 1, 1_499) == (0, 1, 201)
    assert refusals.find("k", ONE, 1, 1_500) is None
    assert len(refusals) == 0
    refusals.remember("k", ONE, 1, 1_000, (0, 500, 100))
    assert refusals.find("k", ONE, 1, 1_400) == (0, 100, 0)


def test_what_was_asked_for_lately_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refusals that are found or given again stay; of the others the oldest goes."""
    monkeypatch.setattr(rules, "KEPT", 2)
    for is_found in (True, False):
        refusals = RememberedRefusals()
        for name in ("a", "b"):
            refusals.remember(name, ONE, 1, 0, (0, 9, 9))
        if is_found:
            refusals.find("a", ONE, 1, 1)
        else:
            refusals.remember("a", ONE, 1, 0, (0, 9, 9))
        refusals.remember("c", ONE, 1, 0, (0, 9, 9))
        assert [refusals.find(name, ONE, 1, 1) is not None for name in "abc"] == [True, False, True]


def test_every_reset_shows() -> None:
    """Whoever asked before one can tell, also where nothing was remembered of it; no two look alike."""
    refusals = RememberedRefusals()
    numbers = [refusals.drops]
    for reset in (lambda: refusals.drop(["k"]), refusals.clear, lambda: refusals.drop(["k"])):
        reset()
        numbers.append(refusals.drops)
    assert numbers == sorted(set(numbers))


def test_an_answer_says_what_callers_are_told() -> None:
    """Passed: no wait. Refused: the wait. Never: none. What is left is never less than nothing."""
    looks = {(3, 0, 5): (True, 3, 0.0), (0, 2_000_000, 5): (False, 0, 2.0), (-2, -1, 5): (False, 0, None)}
    looks[0, 1, 1] = (False, 0, 1e-6)
    for look, said in looks.items():
        result = result_of(ONE, look, "server")
        assert (result.allowed, result.remaining, result.retry_after) == said


def test_the_largest_limit_that_can_be_counted_is_taken() -> None:
    """One unit more is refused."""
    assert Limit(LARGEST_PRODUCT, "1ms").window_ms == 1
    with pytest.raises(ConfigurationError, match="too large"):
        Limit(LARGEST_PRODUCT + 1, "1ms")


@pytest.mark.parametrize("instances", [0, -1, "2", 1.0, True])
def test_there_is_at_least_one_instance(instances: object) -> None:
    """Each counts its part in an outage."""
    with pytest.raises(ConfigurationError, match="instances"):
        RateLimiter(Cache.memory(), instances=instances)  # type: ignore[arg-type] # wrong on purpose


async def test_a_call_may_cost_the_whole_limit() -> None:
    """It runs once."""
    async with Cache.memory() as cache:

        @RateLimiter(cache).limited("k", limit=2, window="1h", cost=2)
        async def expensive() -> str:
            return "done"

        assert await expensive() == "done"


async def test_a_default_of_a_parameter_names_who_is_limited() -> None:
    """As if it were given."""
    async with Cache.memory() as cache:

        @RateLimiter(cache).limited("{user}", limit=1, window="1h")
        async def greet(user: str = "ann") -> str:
            return user

        assert await greet() == "ann"
        with pytest.raises(RateLimited):
            await greet("ann")
        assert await greet("bob") == "bob"


async def test_a_key_that_is_no_text_is_refused() -> None:
    """Half a character is none: no server could store it."""
    async with Cache.memory() as cache:
        with pytest.raises(ConfigurationError, match="key"):
            await RateLimiter(cache).check("ann\ud800", limit=1, window="1h")


def test_a_fixed_window_begins_at_nothing_in_the_moment_the_last_one_ends() -> None:
    """Looked at, and counted."""
    counters, rule = LocalCounters(), Limit(2, "1m", "fixed_window")
    counters.take("k", rule, 2, 2, MINUTE - 1)
    assert counters.look("k", rule, 2, 1, MINUTE - 1)[0] == 0
    assert counters.look("k", rule, 2, 1, MINUTE)[0] == 2
    assert counters.take("k", rule, 2, 1, MINUTE)[0] == 1


def test_a_bucket_is_full_at_first() -> None:
    """Also where time begins."""
    counters, rule = LocalCounters(), Limit(2, "1m", "token_bucket")
    assert [counters.take("k", rule, 2, 1, 0)[0] for _ in range(2)] == [1, 0]


def test_a_window_in_parts_remembers_as_many_numbers_as_it_has_parts() -> None:
    """However much is admitted."""
    counter = local_counters.SlidingCounter(parts=True)
    for at in range(MINUTE, 2 * MINUTE, 10_000):
        counter.add(10_000, MINUTE, 1, at)
    assert len(counter._admitted) <= local_counters.PARTS + 1
    assert counter.look(10_000, MINUTE, 1, 2 * MINUTE - 1)[0] == 10_000 - 6_000


def test_counters_in_use_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the others the least recently used goes."""
    monkeypatch.setattr(local_counters, "KEPT", 2)
    counters = LocalCounters()
    for name in ("a", "b", "a", "c"):
        counters.take(name, Limit(5, 60), 5, 1, 0)
    assert [counters.look(name, Limit(5, 60), 5, 1, 0)[0] for name in "abc"] == [3, 5, 4]


# -- what the live page is told ---------------------------------------------------------------------------------------


def test_a_minute_of_refusals_is_counted_in_tens_of_seconds() -> None:
    """A part of it counts until a minute after it began has passed, and then no more; a clock may step back."""
    lately, now_us = RefusedLately(), 100 * SLOT_US
    for _ in range(3):
        lately.add(now_us)
    lately.add(now_us + 3 * SLOT_US)
    assert lately.lately(now_us + 3 * SLOT_US) == 4
    assert lately.lately(now_us - SLOT_US) == 4
    assert lately.lately(now_us + 6 * SLOT_US - 1) == 4
    assert lately.lately(now_us + 6 * SLOT_US) == 1
    lately.add(now_us + 6 * SLOT_US)
    assert lately.lately(now_us + 8 * SLOT_US) == 2
    assert lately.lately(now_us + 9 * SLOT_US) == 1
    assert lately.lately(now_us + 1000 * SLOT_US) == 0


def test_who_was_refused_most_stands_first_and_of_equals_the_newest() -> None:
    """What was let in is known, and counts as no refusal; a changed limit keeps them."""
    limits, now_us, other = SeenLimits(), 100 * SLOT_US, replace(ONE, limit=2)
    limits.note("login", ONE, now_us, allowed=True)
    limits.note("login", ONE, now_us, allowed=False)
    for name in ("quiet", "busy"):
        limits.note(name, ONE, now_us, allowed=True)
    limits.note("login", other, now_us, allowed=False)
    told = limits.told(now_us)
    assert [(each.counter, each.limit, each.refused) for each in told] == [
        ("login", 2, 2),
        ("busy", 1, 0),
        ("quiet", 1, 0),
    ]


def test_counters_that_were_asked_longest_ago_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many are remembered as there is room for."""
    monkeypatch.setattr(seen, "MOST_SEEN", 2)
    limits = SeenLimits()
    for name in ("a", "b", "a", "c"):
        limits.note(name, ONE, 0, allowed=True)
    assert [each.counter for each in limits.told(0)] == ["c", "a"]


async def test_a_process_tells_how_often_it_refused_in_the_last_minute(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the server refused or memory did; what was let in is known, and counts as no refusal."""
    now = 1000.0
    monkeypatch.setattr(server_backend, "now_s", lambda: now)
    limiter = RateLimiter(client, patience="5s")
    decided = [await limiter.check("login", limit=1, window="1h") for _ in range(4)]
    await limiter.check("export", limit=9, window="1h")
    assert [each.source for each in decided] == ["server", "server", "memory", "memory"]

    def told() -> list[tuple[int, int]]:
        return [(each.limit, each.refused) for teller in client.tellers["limits"] for each in teller("")]

    assert told() == [(1, 3), (9, 0)]
    now += 70
    assert told() == [(9, 0), (1, 0)]
