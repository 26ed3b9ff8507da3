"""What people get wrong: each mistake says what, where, and how to fix it."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import AsyncIterator, Hashable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest

from cachebus import Cache, ConfigurationError, NotCacheable, Policy
from cachebus.errors import CannotStart
from cachebus.testing.server import PrivateServer

if TYPE_CHECKING:
    from somewhere import Session, Unknown  # type: ignore[import-not-found]


class Row:
    """As pydantic's models: msgspec knows no fields of it."""

    def model_dump(self) -> dict[str, int]:
        """Return plain data."""
        return {}


@pytest.fixture
def memory() -> Cache:
    """A cache without a server."""
    return Cache.memory()


def test_the_decorator_without_parentheses(memory: Cache) -> None:
    """The line to write is in the message."""
    with pytest.raises(ConfigurationError, match=r"summary\(\) needs a key: write @cache\.view\(\"summary:"):

        @memory.view  # type: ignore[arg-type]
        async def summary(user_id: int) -> int:
            return user_id


def test_generators(memory: Cache) -> None:
    """At decoration, by name."""

    async def asynchronous(n: int) -> AsyncIterator[int]:
        yield n

    def plain(n: int) -> Iterator[int]:
        yield n

    for function in (asynchronous, plain):
        with pytest.raises(
            ConfigurationError, match=rf"view 'rows:{{n}}': .*{function.__name__} yields .* return a list"
        ):
            memory.view("rows:{n}", ttl="1m")(function)  # type: ignore[arg-type]


async def test_an_annotation_that_only_a_type_checker_sees(memory: Cache) -> None:
    """A parameter's does no harm: only the return type must be known."""

    @memory.view("rows:{n}", ttl="1m", not_in_key="session")
    async def rows(n: int, session: Session | None = None) -> int:
        return n

    assert await rows(1) == 1


def test_a_return_type_that_only_a_type_checker_sees(memory: Cache) -> None:
    """It is named, with what to do."""
    with pytest.raises(ConfigurationError, match=r"view 'u:{n}': the return type 'Unknown'.*top of the module"):

        @memory.view("u:{n}", ttl="1m")
        async def unknown(n: int) -> Unknown:
            return n


@pytest.mark.parametrize(
    ("args", "kwargs", "said"),
    [
        ((7, "USD"), {}, r"too many positional arguments.*by name only: currency="),
        ((), {}, "missing a required argument: 'user_id'"),
        ((7,), {"curency": "USD"}, "got an unexpected keyword argument 'curency'"),
        ((7, 8), {"currency": "USD"}, "too many positional"),
    ],
)
async def test_wrong_arguments(memory: Cache, args: tuple[Any, ...], kwargs: dict[str, Any], said: str) -> None:
    """The view is named, what is wrong, and what its arguments are; before the first read and after it."""

    @memory.view("portfolio:{user_id}:{currency}", ttl="1m")
    async def portfolio(user_id: int, *, currency: str = "USD") -> int:
        return user_id

    for _ in range(2):
        with pytest.raises(TypeError, match=rf"view 'portfolio:{{user_id}}:{{currency}}': {said}") as wrong:
            await portfolio(*args, **kwargs)
        assert "user_id: 'int', *, currency: 'str' = 'USD'" in str(wrong.value)
        await portfolio(7)


async def test_an_object_in_the_key(memory: Cache) -> None:
    """Its kind is named, and what to pass."""

    @memory.view("of:{who}", ttl="1m")
    async def of(who: object) -> int:
        return 1

    with pytest.raises(TypeError, match="Cache cannot be part of a key; pass an id"):
        await of(memory)


@pytest.mark.parametrize("kind", [list[str], dict[str, int], tuple[int, ...], set[int], bytes, Row, list[str] | None])
def test_a_parameter_that_can_never_be_in_a_key(memory: Cache, kind: Any) -> None:
    """At decoration, with the way out; outside the key it is welcome, and so is what may be a text."""

    async def of(ids: Any) -> int:
        return 1

    of.__annotations__["ids"] = kind
    with pytest.raises(ConfigurationError, match=r"view 'of:{ids}': parameter 'ids: .*an id.*not_in_key=\['ids'\]"):
        memory.view("of:{ids}", ttl="1m")(of)
    memory.view("of", ttl="1m", not_in_key=["ids"])(of)
    for number, open_kind in enumerate((Hashable, Sequence[str], int | list[int], Literal["a"])):
        of.__annotations__["ids"] = open_kind
        memory.view(f"open{number}:{{ids}}", ttl="1m")(of)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"ttl": "fast"}, r"ttl: 'fast'"),
        ({"ttl": "1m", "stale": -1}, r"stale"),
        ({"ttl": "1m", "policy": Policy(settle="often")}, r"settle: 'often'"),
        ({"ttl": "1m", "policy": Policy(max_load=0)}, r"max_load"),
        ({"ttl": "1m", "not_in_key": "m"}, r"not_in_key names 'm'; the parameters are: n"),
        ({"ttl": "1m", "identity": "who"}, r"identity 'who' is not in the key \(parameters: n\)"),
        ({"ttl": "1m", "tags": "user:{m}"}, r"tag: {m} in 'user:{m}'.*parameters are n"),
        ({"ttl": "1m", "tags": 7}, r"7 is neither a name nor several"),
        ({"ttl": "59s", "critical": True}, r"critical needs a ttl of 60 s"),
    ],
)
def test_options_that_cannot_be(memory: Cache, options: dict[str, Any], said: str) -> None:
    """The view and the option are named."""

    async def number(n: int) -> int:
        return n

    with pytest.raises(ConfigurationError, match=said):
        memory.view("number:{n}", **options)(number)


@pytest.mark.parametrize("template", ["row:{n", "row:{}", "row:{0}", "row:{n.real}", "row:{n!r}", "row:{n:03}", ""])
def test_templates_that_cannot_be(memory: Cache, template: str) -> None:
    """The template is in the message."""

    async def row(n: int) -> int:
        return n

    with pytest.raises(ConfigurationError, match="view "):
        memory.view(template, ttl="1m")(row)


async def test_a_forgotten_await_where_it_can_be_seen(memory: Cache) -> None:
    """A coroutine that is handed on as a value says so itself."""

    @memory.view("number:{n}", ttl="1m")
    async def number(n: int) -> int:
        return n

    coroutine = number(1)
    with pytest.raises(NotCacheable, match=r"coroutine.*await"):
        await memory.set("k", coroutine)
    coroutine.close()
    with pytest.raises(TypeError, match=r"coroutine.*function"):
        await memory.get_or_load("k", loading := number(1))  # type: ignore[arg-type]
    loading.close()


def test_a_view_of_the_same_key_twice(memory: Cache) -> None:
    """Both functions are named."""

    async def first(n: int) -> int:
        return n

    async def second(n: int) -> int:
        return n

    memory.view("same:{n}", ttl="1m")(first)
    with pytest.raises(ConfigurationError, match=r"view 'same:{n}': .*second.*first"):
        memory.view("same:{n}", ttl="1m")(second)


@pytest.mark.parametrize("password", ["", ":wrong@"])
async def test_no_password_or_a_wrong_one(own_server: PrivateServer, password: str) -> None:
    """Opening the cache says which variable to correct; it is no outage, and nothing is answered by None."""
    own_server.ask("CONFIG", "SET", "requirepass", "right")
    with pytest.raises(CannotStart, match=r"REDIS_URL: the server denies access .*redis://user:password@"):
        async with Cache(own_server.url.replace("redis://", f"redis://{password}")):
            pass


@pytest.mark.parametrize(
    ("rules", "missing"),
    [
        (("~*", "&*", "+@all", "-ping"), r"\+ping"),
        (("~*", "&*", "+@all", "-evalsha"), r"\+evalsha"),
        (("~other:*", "&*", "+@all"), r"~{<namespace>}:\* ~<namespace>:\*"),
    ],
)
async def test_a_user_who_lacks_a_permission(rules: tuple[str, ...], missing: str, own_server: PrivateServer) -> None:
    """Opening the cache names the access rule to add; the password is right, and nothing is said of it."""
    own_server.ask("ACL", "SETUSER", "app", "reset", "on", ">pw", *rules)
    with pytest.raises(CannotStart, match=rf"REDIS_URL: the server denies access .*SETUSER \S+ {missing}$") as raised:
        async with Cache(own_server.url.replace("redis://", "redis://app:pw@")):
            pass
    assert "password" not in str(raised.value)


def test_the_message_of_wrong_arguments_ends_at_the_caller(tmp_path: Path) -> None:
    """The last lines of the traceback show the call, not only the inside of the library."""
    program = tmp_path / "program.py"
    program.write_text(
        "import asyncio\nfrom cachebus import Cache\ncache = Cache.memory()\n"
        "@cache.view('row:{n}', ttl='1m')\nasync def row(*, n: int) -> int:\n    return n\n"
        "async def main() -> None:\n    await row(7)  # here\nasyncio.run(main())\n"
    )
    done = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, timeout=60, check=False)
    assert "await row(7)  # here" in done.stderr
    assert "by name only: n=" in done.stderr.splitlines()[-1]


def test_a_class_without_known_fields(memory: Cache) -> None:
    """In one line: which view, which class, and what to return."""

    with pytest.raises(ConfigurationError) as refused:

        @memory.view("rows:{n}", ttl="1m")
        async def rows(n: int) -> list[Row]:
            return []

    assert str(refused.value) == (
        "view 'rows:{n}': the type Row cannot be stored: return a msgspec.Struct, a dataclass, an attrs class, a "
        "Pydantic model, a NamedTuple, a TypedDict or plain data, or give the cache a codec for it (Cache(codecs=…))"
    )


async def test_a_clock_that_is_none(memory: Cache) -> None:
    """A number is not a clock: eras cannot be compared."""

    @memory.view("rows:{n}", ttl="1m")
    async def rows(n: int) -> int:
        return n

    with pytest.raises(TypeError, match="fresh_after: 123 is not a clock; pass on the text that invalidate"):
        await rows(1, fresh_after=123)  # type: ignore[call-overload]
    with (
        pytest.raises(TypeError, match="fresh_after: 5 is not a clock; pass on the text that invalidate"),
        memory.reading(fresh_after=5),  # type: ignore[arg-type]
    ):
        pass


async def test_the_wrong_kind_of_with(memory: Cache) -> None:
    """Says which one is right."""
    with pytest.raises(TypeError, match="entered with `async with`"), memory:
        pass  # pragma: no cover


async def test_a_cache_in_memory_blames_no_setting(
    memory: Cache, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who writes `Cache.memory()` knows it; who sets REDIS_ENABLED=false in production is warned."""
    async with memory:
        assert caplog.messages == []
    monkeypatch.setenv("REDIS_ENABLED", "false")
    async with Cache.from_env():
        assert [message.partition(":")[0] for message in caplog.messages] == ["REDIS_ENABLED=false"]


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"template": 5}, "view 5: a key is a text"),
        ({"tags": [5]}, "view 'v:{n}': tags: 5 is not a name"),
        ({"tags": None}, "view 'v:{n}': tags: None is neither a name nor several"),
        ({"not_in_key": 5}, "view 'v:{n}': not_in_key: 5 is neither a name nor several"),
        ({"identity": ["n"]}, "view 'v:{n}': identity: ['n'] is no name; write identity="),
        ({"policy": {"settle": "1s"}}, "is no Policy; write Policy(settle="),
        ({"policy": Policy(keep=5)}, "view 'v:{n}': keep: 5 is no function"),  # type: ignore[arg-type]
        ({"ttl": 0.0005}, "view 'v:{n}': ttl: 0.0005 must be at least 1 ms"),
    ],
)
def test_an_option_of_the_wrong_kind(memory: Cache, wrong: dict[str, Any], named: str) -> None:
    """Refused where it is written, with the view and the option."""

    async def load(n: int) -> int:
        return n

    with pytest.raises(ConfigurationError, match=re.escape(named)):
        memory.view(**{"template": "v:{n}", **wrong})(load)


def test_what_no_view_can_be_made_of(memory: Cache) -> None:
    """A class; a function whose parameter has no name for callers."""

    async def positional(n: int, /) -> int:
        return n

    with pytest.raises(ConfigurationError, match="view 'v': it is made of an `async def` function, not of <class"):
        memory.view("v")(int)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="parameter 'n' cannot be given by name; leave out the '/'"):
        memory.view("v:{n}")(positional)


@pytest.mark.parametrize("connected", [False, True])
@pytest.mark.parametrize(("value", "why"), [([1], "list cannot be part of a key"), ("\ud800", "lone surrogate")])
async def test_an_argument_that_no_key_can_hold(memory: Cache, value: Any, why: str, *, connected: bool) -> None:
    """The view and the parameter are named, on the first call and later."""

    @memory.view("v:{name}")
    async def load(name: str) -> str:
        return name

    if connected:
        await load("a")
    with pytest.raises(TypeError, match=f"view 'v:{{name}}': parameter 'name': .*{why}"):
        await load(value)


async def test_plain_values_name_what_cannot_be(memory: Cache) -> None:
    """A pattern, a clock of the wrong kind."""
    with pytest.raises(ConfigurationError, match="pattern: 5 must be text"):
        await memory.invalidate(pattern=5)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="set 'k': born=5 is no clock"):
        await memory.set("k", 1, born=5)  # type: ignore[arg-type]

    async def nothing(_keys: list[str]) -> Any:
        return None

    def plain(*_: object) -> Any:
        return {"k": 1}

    with pytest.raises(TypeError, match=r"^load: plain is a plain function, .*: make it `async def`, or .*to_thread"):
        await memory.get_or_load("k", plain)
    with pytest.raises(TypeError, match=r"^load: plain is a plain function"):
        await memory.get_or_load_many(["k"], plain)
    with pytest.raises(ConfigurationError, match="load returned None, not values by key"):
        await memory.get_or_load_many(["k"], nothing)
