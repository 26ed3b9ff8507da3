"""Which arguments are one entry and which are two, and what an invalidation by name reaches."""

from __future__ import annotations

import enum
from typing import Annotated, Any, Literal, NewType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachebus import Cache, ConfigurationError, Policy, View
from cachebus.freshness.scopes import scopes_of
from cachebus.templates import unmarked
from tests.conftest import Connect

UserId = NewType("UserId", int)


class Colour(enum.Enum):
    """Its values are text."""

    RED = "red"


def doubtful(cache: Cache) -> list[tuple[View[..., str], Any, Any]]:
    """Return views with two arguments each that print alike and are not the same."""

    @cache.view("either:{x}", ttl="1h")
    async def either(x: str | None) -> str:
        return repr(x)

    @cache.view("number:{x}", ttl="1h")
    async def number(x: int | str) -> str:
        return repr(x)

    @cache.view("literal:{x}", ttl="1h")
    async def literal(x: Literal[True, "True"]) -> str:
        return repr(x)

    @cache.view("default:{x}", ttl="1h")
    async def default(x: str = None) -> str:  # type: ignore[assignment]  # noqa: RUF013 - as many write it
        return repr(x)

    @cache.view("bare:{x}", ttl="1h")
    async def bare(x) -> str:  # type: ignore[no-untyped-def]
        return repr(x)

    @cache.view("anything:{x}", ttl="1h")
    async def anything(x: Any) -> str:
        return repr(x)

    @cache.view("named:{x}", ttl="1h")
    async def named(x: Colour | str) -> str:
        return repr(x)

    return [
        (either, None, "None"),
        (number, 1, "1"),
        (literal, True, "True"),
        (default, None, "None"),
        (bare, 1, "1"),
        (bare, 1, True),
        (bare, None, "None"),
        (anything, 1.0, "1.0"),
        (named, Colour.RED, "red"),
    ]


@pytest.mark.parametrize("at", range(9))
async def test_what_prints_alike_is_two_entries(connect: Connect, at: int) -> None:
    """Whoever may choose an argument cannot choose what others get for another; in memory and from Redis."""
    view, one, other = doubtful(await connect())[at]
    assert [await view(one), await view(other)] == [repr(one), repr(other)]
    view, one, other = doubtful(await connect())[at]
    assert [await view(other), await view(one)] == [repr(other), repr(one)]
    assert view.stats.loads == 0


@pytest.mark.parametrize("at", [0, 1, 2, 3, 4, 6, 7, 8])
async def test_an_invalidation_by_the_plain_name_reaches_both(connect: Connect, at: int) -> None:
    """Handlers and other languages write `number:1`: that is 1 and "1", here and elsewhere; so does the view itself."""
    here, there = await connect(), await connect()
    (view, one, other), (theirs, _, _) = doubtful(here)[at], doubtful(there)[at]
    plain = f"{view.name.partition(':')[0]}:{getattr(one, 'value', one)}"
    for invalidate in (
        lambda: here.invalidate(keys=[plain]),
        lambda: view.invalidate(one),
        lambda: view.invalidate(other),
        lambda: here.invalidate(prefix=f"{plain.partition(':')[0]}:"),
    ):
        await theirs(one), await theirs(other)
        loads = theirs.stats.loads
        clock = await invalidate()
        await theirs(one, fresh_after=clock)
        await theirs(other, fresh_after=clock)
        assert theirs.stats.loads == loads + 2


def test_a_parameter_with_one_type_keeps_its_text() -> None:
    """So that a key is what everybody would write, whatever says the type."""
    cache = Cache.memory()

    @cache.view("plain:{a}:{b}:{c}:{d}:{e}", ttl="1m")
    async def view(a: int, b: UserId, c: Annotated[str, "a name"], d: Literal["x", "y"], e: int | None = None) -> int:
        return a

    assert view.key(7, UserId(8), "c", "x", 9) == "plain:7:8:c:x:9"
    assert view.key(7, UserId(8), "c", "x") == "plain:7:8:c:x:None%none"


def test_marks_are_in_keys_and_nowhere_else() -> None:
    """Tags and the identity are what they were."""
    cache = Cache.memory()

    @cache.view("marked:{user_id}", ttl="1m", tags=["user:{user_id}"])
    async def view(user_id: int | str) -> int:
        return 1

    assert view.key(7) == "marked:7%int"
    assert view.key("7") == "marked:7"
    assert view.tags(7) == view.tags("7") == ["user:7"]
    assert view.identity == "user_id"


ANYTHING = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.dates() | st.uuids() | st.decimals()


@given(ANYTHING, ANYTHING)
def test_different_arguments_have_different_keys(one: Any, other: Any) -> None:
    """Of whatever types; and each belongs to what its plain name belongs to."""
    cache = Cache.memory()

    @cache.view("any:{x}:end", ttl="1m")
    async def view(x: object) -> int:
        return 1

    same = type(one) is type(other) and str(one) == str(other)
    assert (view.key(one) == view.key(other)) == same
    assert set(scopes_of(unmarked(view.key(one)))) <= set(scopes_of(view.key(one)))


async def test_a_corrected_calculation_serves_no_older_result(connect: Connect) -> None:
    """Another version is another entry; the same one is the same."""

    def total(cache: Cache, version: int | str, result: int) -> View[[int], int]:
        @cache.view("total:{n}", ttl="1h", policy=Policy(version=version))
        async def view(n: int) -> int:
            return result

        return view

    assert await total(await connect(), "", 1)(7) == 1
    assert await total(await connect(), 2, 2)(7) == 2
    assert await total(await connect(), 2, 3)(7) == 2
    assert await total(await connect(), "", 4)(7) == 1


class TestLoneStrings:
    """Wherever several names are taken, one string is one name, not its letters."""

    async def test_an_invalidation(self, cache: Cache) -> None:
        """By key and by tag; nothing else is reached."""

        @cache.view("lone:{n}", ttl="1h", tags="user:{n}")
        async def view(n: int) -> int:
            return n

        assert view.tags(7) == ["user:7"]
        for scopes in ({"tags": "user:7"}, {"keys": "lone:7"}):
            await view(7)
            await view(8)
            before = view.stats.loads
            await cache.invalidate(**scopes)  # type: ignore[arg-type]
            await view(7)
            await view(8)
            assert view.stats.loads == before + 1

    async def test_tags_of_a_value(self, cache: Cache) -> None:
        """The function that names them may return one."""

        @cache.view("valued:{n}", ttl="1h", tags=lambda value: f"is:{value}")
        async def view(n: int) -> int:
            return n

        await view(7)
        await cache.invalidate(tags="is:7")
        await view(7)
        assert view.stats.loads == 2

    async def test_tags_of_a_plain_value(self, cache: Cache) -> None:
        """Of `set` and of what a load brings."""

        async def five() -> int:
            return 5

        await cache.set("lone", 1, tags="user:7")
        await cache.get_or_load("loaded", five, tags="user:7")
        await cache.invalidate(tags="user:7")
        assert await cache.get_many(["lone", "loaded"]) == {}

    async def test_keys_to_get(self, cache: Cache) -> None:
        """`get_many` of one."""
        await cache.set("lone", 1)
        assert await cache.get_many("lone") == {"lone": 1}

    def test_a_parameter_that_is_not_in_the_key(self) -> None:
        """`not_in_key="session"`."""

        @(cache := Cache.memory()).view("session:{n}", ttl="1m", not_in_key="session")
        async def view(n: int, session: object) -> int:
            return n

        assert view.key(7, cache) == "session:7"

    @pytest.mark.parametrize("scopes", [{"tags": 7}, {"keys": [7]}, {"tags": [None]}, {"tags": b"user:7"}])
    async def test_what_is_no_name_is_refused(self, cache: Cache, scopes: dict[str, Any]) -> None:
        """By what was given."""
        with pytest.raises(ConfigurationError, match=r"^7 is|^key: 7|^tag: None|^b'user:7' is"):
            await cache.invalidate(**scopes)


async def test_a_parameter_may_be_called_anything(connect: Connect) -> None:
    """Also what the words of keys are called inside: `key`, `plain`, `escape`."""
    cache = await connect()

    @cache.view("named:{key}:{plain}", ttl="1m", tags=["key:{key}", "plain:{plain}:{escape}"], not_in_key=["escape"])
    async def view(key: str, plain: int, escape: int | str) -> str:
        return f"{key}{plain}{escape}"

    assert await view("a", 1, escape=2) == "a12"
    assert (view.key("a", 1, 2), view.tags("a", 1, 2)) == ("named:a:1", ["key:a", "plain:1:2"])
    await cache.invalidate(tags=["plain:1:2"])
    assert await view("a", 1, 3) == "a13"
