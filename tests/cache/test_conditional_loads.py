"""Loads that ask the source whether anything changed: the validator kept beside a value, and renewals by it."""

from __future__ import annotations

import pydantic
import pytest

from cachebus import UNCHANGED, Cache, previous, previous_validator, sync, validated
from tests.conftest import Connect


class Rates(pydantic.BaseModel):
    """What a source sends. Its ETag is none of its fields."""

    euro: float


async def test_a_validator_is_kept_beside_the_value(connect: Connect) -> None:
    """The next load begins with it in any process; what is too long, or no text of UTF-8, is left out."""
    asked: list[tuple[object, str | None]] = []
    etags = ['"v1"', '"v1"', '"v2"', None, "x" * 600, "\udcff", '"v3"']
    one, two = await connect(), await connect()
    for cache in (one, two):

        @cache.view("rates:{day}", ttl="1m")
        async def rates(day: str) -> Rates:
            asked.append((previous(), previous_validator()))
            etag = etags.pop(0)
            return UNCHANGED if etag is not None and etag == previous_validator() else validated(Rates(euro=1), etag)

    first, second = one.views["rates:{day}"], two.views["rates:{day}"]
    assert await first("today") == Rates(euro=1)
    clock = await first.invalidate("today")
    assert await second("today", fresh_after=clock) == Rates(euro=1), "not modified: the value is kept"
    for _ in range(5):
        assert await second.refresh("today") == Rates(euro=1)
    assert [validator for _, validator in asked] == [None, '"v1"', '"v1"', '"v2"', None, None, None]
    assert [value for value, _ in asked] == [None, *[Rates(euro=1)] * 6]
    assert previous_validator() is None, "outside a load"


async def test_a_validator_belongs_to_what_was_returned_with_it() -> None:
    """Also to None, or to UNCHANGED; never to another value that is returned in its place."""
    asked: list[str | None] = []
    async with Cache.memory() as memory:

        @memory.view("found:{n}", ttl="1m")
        async def found(n: int) -> str | None:
            asked.append(previous_validator())
            nothing = validated(None, "v1")
            if len(asked) == 2:
                return validated(UNCHANGED, "v2")
            return nothing if len(asked) == 1 else "other"

        values = [await found(1), *[await found.refresh(1) for _ in range(3)]]
    assert values == [None, None, "other", "other"]
    assert asked == [None, "v1", "v2", None]
    with pytest.raises(TypeError, match=r"validator 7 must be text; write str\(…\)"):
        validated("value", 7)  # type: ignore[arg-type]


async def test_a_view_that_runs_uncached_within_a_load_knows_nothing_of_it() -> None:
    """What is not cached for an anonymous caller, and a direct load, have no previous value: that is another view's."""
    seen: list[object] = []
    async with Cache.memory() as memory:

        @memory.view("inner:{user_id}", ttl="1m")
        async def inner(user_id: int | None) -> str:
            seen.append(previous())
            return UNCHANGED if previous() is not None else "inner"

        @memory.view("outer:{n}", ttl="1m")
        async def outer(n: int) -> str:
            return f"{await inner(None)}, {await inner.load(7)}, then {previous()}"

        await outer(1)
        assert await outer.refresh(1) == "inner, inner, then inner, inner, then None"
    assert seen == [None] * 4


def test_a_load_in_the_callers_thread_knows_the_previous_value() -> None:
    """So does one of the synchronous cache, whose function runs outside the loop."""
    asked: list[tuple[object, str | None]] = []
    with sync.Cache.memory() as memory:

        @memory.view("rates:{day}", ttl="1m")
        def rates(day: str) -> Rates:
            asked.append((previous(), previous_validator()))
            return UNCHANGED if previous_validator() == "v1" else validated(Rates(euro=1), "v1")

        assert [rates("today"), rates.refresh("today"), rates.refresh("today")] == [Rates(euro=1)] * 3
    assert asked == [(None, None), *[(Rates(euro=1), "v1")] * 2]
