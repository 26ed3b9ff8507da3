"""Credentials that change under load, what is wrong with those that were given, and the recipes of the how-to page."""

from __future__ import annotations

import asyncio
import logging
import random
import re
import sys
import time
import types
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import redis

from cachebus import Cache, CacheSettings, Client, ConfigurationError, Unavailable
from cachebus.errors import CannotStart
from cachebus.redis.credentials import Credentials
from cachebus.testing.server import PrivateServer
from tests.support.changing_credentials import RULES, Rotation, Tokens, load
from tests.support.waiting import until

PAGE = Path(__file__).parents[2] / "docs/howto/change-credentials.md"
RECIPES = re.findall(r"^## (\S+).*?^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)


async def test_tokens_that_end_cost_nobody_anything(own_server: PrivateServer) -> None:
    """Each is a user that is deleted when it expires: no connection is closed by that, and no message is missed."""
    outcome = await load(own_server, Tokens(own_server, 2.0), 2.2)
    assert outcome.errors == []
    assert outcome.changes > 4
    assert (outcome.closed, outcome.gaps, outcome.twice) == (0, 0, 0)
    assert (outcome.handled, outcome.heard) == (outcome.published, outcome.sent)


async def test_a_password_that_is_replaced_under_load_is_no_error(own_server: PrivateServer) -> None:
    """With connections closed at each change: every one is made again with the password of that moment."""
    outcome = await load(own_server, Rotation(own_server, 0.4, random.Random(3)), 1.0)  # noqa: S311
    assert outcome.errors == []
    assert outcome.changes > 2
    assert (outcome.handled, outcome.twice) == (outcome.published, 0)


async def test_messages_keep_their_order_while_the_listening_connection_is_replaced(
    own_server: PrivateServer, namespace: str
) -> None:
    """All of them, each once, also on a channel that was subscribed and one that was left in the middle of it."""
    tokens, heard, late = Tokens(own_server, 0.4), list[int](), list[bytes]()
    async with Client(own_server.url, namespace=namespace, credentials=tokens.token) as client:
        listening = client.subscriptions
        await listening.subscribe(f"{namespace}:*", lambda _, said: heard.append(int(said)), pattern=True)
        left = await listening.subscribe("left", lambda *_: None)
        first, sent, changed = listening._current, 0, False
        while listening._current is first:
            assert own_server.ask("PUBLISH", f"{namespace}:n", sent) >= 1
            sent += 1
            if tokens.changes > 2 and not changed:
                changed = True
                await left.cancel()
                await listening.subscribe("late", lambda _, said: late.append(said))
            await asyncio.sleep(0)
        own_server.ask("PUBLISH", "late", "heard")
        await until(lambda: len(heard) == sent and late, "all is heard")
        assert heard == list(range(sent))
        assert listening.gaps == 0
        await until(lambda: own_server.ask("PUBLISH", "left", "") == 0, "nobody listens to what was left")
        assert own_server.ask("PUBSUB", "CHANNELS", "*wake*") == []


@pytest.mark.parametrize("rules", [("-publish",), ("resetchannels", "&news")])
async def test_a_handover_that_cannot_be_is_a_gap_that_is_told(
    own_server: PrivateServer, namespace: str, rules: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    """A user who may not publish, or hear, the marker gets a new connection all the same: something may be missing."""
    tokens, gaps = Tokens(own_server, 0.4), list[int]()

    async def token() -> tuple[str | None, str, float | None]:
        user, password, ends = await tokens.token()
        own_server.ask("ACL", "SETUSER", str(user), *rules)
        return user, password, ends

    async with Client(own_server.url, namespace=namespace, credentials=token) as client:
        await client.subscriptions.subscribe("news", lambda *_: None, on_gap=lambda: gaps.append(1))
        await until(lambda: gaps, "the gap is told")
    assert [record for record in caplog.records if record.levelno > logging.INFO] == []


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("secret", "returned str; it must be an async function that returns (user or None, password, "),
        (("app", "secret"), "returned tuple; "),
        ((1, "secret", None), "user is int; "),
        (("app", b"secret", None), "password is bytes; "),
        (("app", "secret", "soon"), "expires_at is str; "),
        (("app", "secret", True), "expires_at is bool; "),
        (("app", "secret", 12), "expires_at=12 is over"),
        (("app", "secret", 1.7e12), "expires_at=1700000000000.0 is in no century; seconds of the epoch are expected"),
        (("app", "secret", float("nan")), "expires_at=nan is in no century; "),
    ],
)
async def test_an_answer_that_cannot_be_is_one_line(answer: Any, said: str) -> None:
    """It names the setting, the field and what is expected."""

    async def token() -> Any:
        return answer

    with pytest.raises(Unavailable) as refused:
        await Credentials(token, "REDIS_CREDENTIALS=shop.redis:token").ask()
    assert str(refused.value).startswith(f"REDIS_CREDENTIALS=shop.redis:token: {said}")
    assert "secret" not in str(refused.value).replace("(user", "")
    assert "\n" not in str(refused.value)


async def test_who_cannot_answer_is_an_outage_logged_once(
    server: PrivateServer, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Reads go on from their source; when an answer comes, the cache connects."""
    server.ask("ACL", "SETUSER", namespace, *RULES, ">pw")
    broken = True

    async def token() -> tuple[str, str, None]:
        if broken:
            raise OSError("the issuer is down")
        return namespace, "pw", None

    async with Cache(server.url, credentials=token) as cache:

        @cache.view("item:{n}", ttl="1m")
        async def item(n: int) -> int:
            return n

        assert await item(1) == 1
        broken = False
        await until(lambda: cache.stats().up, "connected")
    lines = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(lines) == 1
    assert "credentials=: raised OSError: the issuer is down" in lines[0]
    server.ask("ACL", "DELUSER", namespace)


@pytest.mark.parametrize("changing", [False, True])
async def test_a_wrong_password_ends_the_start_and_says_where_it_comes_from(
    server: PrivateServer, *, changing: bool
) -> None:
    """One line, with the server's words and the fix; never the password, also where each answer is another one."""
    asked: list[int] = []

    async def token() -> tuple[str, str, None]:
        asked.append(1)
        return "nobody", f"hunter2{len(asked) if changing else ''}", None

    with pytest.raises(CannotStart) as refused:
        async with Cache(server.url, credentials=token):
            pass
    (line,) = refused.value.problems
    assert "WRONGPASS" in line
    assert line.endswith("(credentials=)); correct what that function returns: (user, password, expires_at)")
    assert "hunter2" not in line


async def test_the_environment_names_the_function(
    server: PrivateServer, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`REDIS_CREDENTIALS=module:name`: it is asked, in the place of what the URL says."""
    server.ask("ACL", "SETUSER", namespace, *RULES, ">pw")
    token = mock.AsyncMock(return_value=(namespace, "pw", None))
    monkeypatch.setitem(sys.modules, "shop.redis", types.SimpleNamespace(token=token))
    monkeypatch.setenv("REDIS_URL", server.url.replace("://", "://nobody:wrong@"))
    monkeypatch.setenv("REDIS_CREDENTIALS", "shop.redis:token")
    monkeypatch.setenv("CACHE_NAMESPACE", namespace)
    async with Cache.from_env() as cache:
        await cache.set("plain", 1)
        assert f"user={namespace}" in server.ask("CLIENT", "LIST").decode()
    server.ask("ACL", "DELUSER", namespace)


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ("nowhere.at_all:token", "nowhere.at_all cannot be imported: ModuleNotFoundError: No module named 'nowhere'"),
        ("cachebus.clock:token", "there is no 'token' in cachebus.clock"),
        ("cachebus.errors:__doc__", "'__doc__' in cachebus.errors is str; it must be an async function that returns "),
        ("token", "'token' is not package.module:name; write it like shop.views:cache"),
    ],
)
async def test_an_unknown_module_is_one_line(
    monkeypatch: pytest.MonkeyPatch, server: PrivateServer, named: str, said: str
) -> None:
    """As every setting that cannot be: the name, what is wrong, before anything is started."""
    monkeypatch.setenv("REDIS_URL", server.url)
    monkeypatch.setenv("REDIS_CREDENTIALS", named)
    with pytest.raises(CannotStart) as refused:
        async with Cache.from_env():
            pass
    (line,) = refused.value.problems
    assert line.startswith(f"REDIS_CREDENTIALS: {said}")


def test_what_is_no_function_is_refused_where_it_is_written() -> None:
    """At once, naming the parameter."""
    with pytest.raises(ConfigurationError, match=r"credentials: 'secret' must be an async function, beside a URL"):
        Cache("redis://localhost", credentials="secret")  # type: ignore[arg-type] # that is the mistake
    with pytest.raises(ConfigurationError, match=r"credentials: .* Cache\(url, credentials=token\)"):
        Cache(credentials=mock.AsyncMock())
    with pytest.raises(ConfigurationError, match=r"url: a CacheSettings is no text; .* Cache\(settings=…\)"):
        Cache(CacheSettings(url="redis://:secret@localhost"))  # type: ignore[arg-type]


# -- the recipes, with issuers of ours ---------------------------------------------------------------------------------


def aws(issue: Callable[[], str]) -> dict[str, Any]:
    """Return stand-ins for botocore: a signer that signs the URL it is given."""
    session = types.SimpleNamespace(get_credentials=lambda: "keys", get_component=lambda name: name)

    class RequestSigner:
        def __init__(self, service: str, region: str, name: str, version: str, keys: str, emitter: str) -> None:
            assert (service, region, name, version) == ("elasticache", "eu-central-1", "elasticache", "v4")
            assert (keys, emitter) == ("keys", "event_emitter")

        def generate_presigned_url(self, request: dict[str, Any], **options: Any) -> str:
            assert options == {"operation_name": "connect", "expires_in": 900, "region_name": "eu-central-1"}
            return f"https://{issue()}"

    return {
        "botocore": types.SimpleNamespace(session=types.SimpleNamespace(get_session=lambda: session)),
        "botocore.session": types.SimpleNamespace(),
        "botocore.model": types.SimpleNamespace(ServiceId=str),
        "botocore.signers": types.SimpleNamespace(RequestSigner=RequestSigner),
    }


def azure(issue: Callable[[], str]) -> dict[str, Any]:
    """Return a stand-in for azure.identity."""

    class DefaultAzureCredential:
        async def get_token(self, scope: str) -> Any:
            assert scope == "https://redis.azure.com/.default"
            return types.SimpleNamespace(token=issue(), expires_on=int(time.time()) + 3600)

    return {"azure.identity.aio": types.SimpleNamespace(DefaultAzureCredential=DefaultAzureCredential)}


def google(issue: Callable[[], str]) -> dict[str, Any]:
    """Return a stand-in for google.auth, whose expiry is UTC without saying so."""

    class Identity:
        def refresh(self, _request: object) -> None:
            self.token = issue()
            self.expiry = datetime.now(UTC).replace(tzinfo=None) + timedelta(hours=1)

    auth = types.SimpleNamespace(default=lambda scopes: (Identity(), "project"))
    return {
        "google": types.SimpleNamespace(auth=auth),
        "google.auth": auth,
        "google.auth.transport.requests": types.SimpleNamespace(Request=object),
    }


def heroku(issue: Callable[[], str]) -> dict[str, Any]:
    """Return nothing: what is asked is asked by HTTP, see the test."""
    return {}


USERS = {
    "ElastiCache": ("app", aws),
    "Azure": ("00000000-0000-0000-0000-000000000000", azure),
    "Google": ("default", google),
    "Heroku's": ("default", heroku),
}


@pytest.mark.parametrize(("name", "recipe"), RECIPES)
async def test_a_recipe_of_the_page_opens_a_server(
    own_server: PrivateServer, monkeypatch: pytest.MonkeyPatch, name: str, recipe: str
) -> None:
    """The issuer is ours; the server refuses every password but the newest."""
    user, issuer = USERS[name]
    issued: list[str] = []

    administrator = redis.Redis(port=own_server.port, single_connection_client=True)  # let in before the first password

    def issue() -> str:
        issued.append(f"token-{len(issued)}")
        administrator.execute_command(  # type: ignore[no-untyped-call] # as the driver has it
            "ACL", "SETUSER", user, *RULES, "resetpass", f">{issued[-1]}"
        )
        return issued[-1]

    for module, stand_in in issuer(issue).items():
        monkeypatch.setitem(sys.modules, module, stand_in)
    monkeypatch.setenv("HEROKU_API_KEY", "key")
    made: dict[str, Any] = {}
    exec(compile(recipe, name, "exec"), made)  # noqa: S102 - our own page
    if issuer is heroku:
        made["urlopen"] = lambda request, timeout: BytesIO(
            f'{{"REDIS_URL": "rediss://:{issue()}@elsewhere:6379"}}'.encode()
        )
    _, _, ends = await made["token"]()
    assert 200 < ends - time.time() <= 3600
    async with Cache(own_server.url, credentials=made["token"]) as cache:
        await cache.set("plain", 1)
        assert await cache.get("plain") == 1
    assert len(issued) >= 2
    administrator.close()
