"""What must never be stored is refused in whatever shape it comes, and nothing else is."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import msgspec
import pytest

from cachebus import Cache, CacheSettings, ConfigurationError, NotCacheable
from cachebus.cache.values.never import CREDENTIALS, NeverCached
from cachebus.testing.server import PrivateServer
from tests.conftest import Connect

PAGE = Path(__file__).parents[2] / "docs/explain/never-cached.md"
SECRET = "hunter2-in-plain-sight"  # noqa: S105 - opens nothing


class Renamed(msgspec.Struct, rename={"shown": "apiKey"}):
    """Stored under another name than it is written."""

    shown: str = SECRET


class Account(msgspec.Struct):
    """A Struct."""

    user_id: int = 7
    passwordHash: str = SECRET  # noqa: N815 - as a JavaScript client spells it


@dataclasses.dataclass
class Login:
    """A dataclass."""

    pwd: str = SECRET


class Pair(NamedTuple):
    """Stored without its names."""

    user_id: int = 7
    secret: str = SECRET


class Form(TypedDict):
    """A dictionary with a schema."""

    private_key: str


class Attrs:
    """What attrs makes of a class, as far as msgspec looks."""

    __attrs_attrs__ = (type("Attribute", (), {"name": "access_token"})(),)

    def __init__(self) -> None:
        self.access_token = SECRET


def deep(value: Any, levels: int = 40) -> Any:
    """Bury a value."""
    for level in range(levels):
        value = [value] if level % 2 else {"inner": value}
    return value


SHAPES: dict[str, tuple[Any, Callable[[], Any]]] = {
    "dict": (dict, lambda: {"user_id": 7, "password": SECRET}),
    "dict of text": (dict[str, str], lambda: {"Api-Key": SECRET}),
    "list of dicts": (list[dict], lambda: [{"refresh_token": SECRET}]),  # type: ignore[type-arg] # as people write it
    "bytes keys": (dict[bytes, str], lambda: {b"token": SECRET}),
    "Any inside": (dict[str, Any], lambda: {"rows": [{"client_secret": SECRET}]}),
    "named tuple inside": (dict[str, Any], lambda: {"rows": [Pair()]}),
    "Struct inside": (dict[str, Any], lambda: {"account": Account()}),
    "dataclass inside": (list[Any], lambda: [Login()]),
    "renamed Struct inside": (list[Any], lambda: [Renamed()]),
    "attrs inside": (list[Any], lambda: [Attrs()]),
    "the 51st row": (list, lambda: [{"n": n} for n in range(50)] + [{"password": SECRET}]),
    "deep": (Any, lambda: deep({"password": SECRET})),
    "object": (object, lambda: {"passwd": SECRET}),
    "encoded already": (dict[str, Any], lambda: {"raw": msgspec.Raw(msgspec.msgpack.encode({"secret": SECRET}))}),
}


@pytest.mark.parametrize("shape", SHAPES)
async def test_a_refused_name_is_served_and_not_stored(
    connect: Connect, server: PrivateServer, namespace: str, shape: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever the declared type does not say is looked at in the value: nothing of it reaches Redis or memory."""
    cache = await connect()
    declared, value = SHAPES[shape]

    async def annotated() -> Any:
        return value()

    async def bare():  # type: ignore[no-untyped-def]
        return value()

    annotated.__annotations__["return"] = declared
    for template, function in (("annotated:{n}", annotated), ("bare:{n}", bare)):
        view = cache.view(template.removesuffix(":{n}"), ttl="1m")(function)
        for _ in range(2):
            await view()
        assert (view.stats.loads, view.stats.uncacheable) == (2, 2)
    for name in server.ask("KEYS", f"{namespace}:e:*"):
        assert SECRET.encode() not in server.ask("GET", name)
    assert not cache.reader.memory.store.held  # type: ignore[union-attr]
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len([line for line in warnings if "served and not stored" in line]) == 2


@pytest.mark.parametrize("shape", SHAPES)
async def test_a_refused_name_cannot_be_set(shape: str) -> None:
    """`cache.set` looks at everything."""
    async with Cache.memory() as cache:
        with pytest.raises(TypeError, match=r"must never be cached|cannot be stored"):
            await cache.set("key", SHAPES[shape][1]())


@pytest.mark.parametrize("declared", [Renamed, Account, Login, Pair, Form, list[Account], dict[str, Login | None]])
def test_a_type_that_names_one_is_refused_at_decoration(declared: Any) -> None:
    """As written and as stored."""

    async def view() -> Any: ...

    view.__annotations__["return"] = declared
    with pytest.raises(ConfigurationError, match="must never be cached"):
        Cache.memory().view("v", ttl="1m")(view)


def test_the_page_lists_what_is_refused() -> None:
    """All of it, and nothing else."""
    listed = PAGE.read_text().partition("by itself: ")[2].partition(".\n")[0]
    assert set(re.findall(r"`(\w+)`", listed)) == CREDENTIALS


def test_names_are_compared_whole() -> None:
    """Only letters and digits count, whatever stands between them; a longer name is another name."""
    never = NeverCached()
    assert all(name in never for name in ("password", "PassWord", "pass_word", "PASS-WORD", "apiKey", "passwordHash"))
    assert all(name in never for name in ("API Key", " password ", "client.secret", "pass\u200bword", "\uff50assword"))
    others = (
        "token_count",
        "next_page_token",
        "tokens",
        "secretary",
        "passwords_changed",
        "email",
        "order_status",
        "",
        "$",
    )
    assert not any(name in never for name in others)


def test_the_application_has_the_last_word() -> None:
    """Names are added, allowed again, or replaced altogether; a lone name is one name."""
    assert "email" in NeverCached(["e-mail"])
    assert "token" not in NeverCached(["-token"])
    assert "password" in NeverCached("balance")
    assert "balance" in NeverCached("balance")
    only = NeverCached(["-*", "balance"])
    assert "password" not in only
    assert "Balance" in only


class Shop(msgspec.Struct, frozen=True):
    """What a shop may well cache."""

    email: str
    order_status: str


async def test_the_environment_adds_to_the_application(monkeypatch: pytest.MonkeyPatch) -> None:
    """`NEVER_CACHE` is read when the cache is first used: also types declared before are held to it."""
    monkeypatch.setenv("NEVER_CACHE", "email, -token")
    monkeypatch.setenv("REDIS_ENABLED", "false")
    cache = Cache(never=["balance"])

    @cache.view("shop", ttl="1m")
    async def shop() -> Shop:
        return Shop("a@b.c", "paid")

    async with cache:
        for _ in range(2):
            assert await shop() == Shop("a@b.c", "paid")
        assert (shop.stats.loads, shop.stats.uncacheable) == (2, 2)
        await cache.set("basket", {"token": "a gift card"})
        for refused in ("email", "balance", "password"):
            with pytest.raises(TypeError, match=refused):
                await cache.set("basket", {refused: 1})


async def test_settings_given_in_code_count_too() -> None:
    """As those of the environment."""
    async with Cache(settings=CacheSettings(redis_enabled=False, never=("email",))) as cache:
        with pytest.raises(TypeError, match="email"):
            await cache.set("basket", {"email": 1})


async def test_tags_that_are_too_many_to_be_stored(somewhere: Cache, caplog: pytest.LogCaptureFixture) -> None:
    """The value is served, counted and told of once; `set` raises."""
    cache = somewhere

    @cache.view("rows:{many}", ttl="1m", tags=lambda rows: [f"trade:{row:036}" for row in rows])
    async def rows(many: int) -> list[int]:
        return list(range(many))

    for _ in range(2):
        assert len(await rows(2000)) == 2000
    assert rows.stats.uncacheable == 2
    assert caplog.text.count("2,000 tags have") == 1
    with pytest.raises(NotCacheable, match="its 1 tags have"):
        await cache.set("a", 1, "1m", tags=["x" * 70_000])
