"""OWASP ASVS 5.0, row by row: V7 session management, and what V3, V11 and V16 say about session tokens."""

from __future__ import annotations

import inspect
import logging
import secrets
from base64 import urlsafe_b64decode
from pathlib import Path
from typing import Any

import pytest

from cachebus.errors import SessionsUnavailable
from cachebus.integrations.asgi import SessionMiddleware
from cachebus.redis.client import Client
from cachebus.sessions.store import SessionStore
from cachebus.testing.server import PrivateServer
from tests.support.asgi_browser import Browser
from tests.support.server_clock import ClockedServer

MINUTE = 60_000_000
HOWTO = Path(__file__).parents[2] / "docs" / "howto" / "keep-sessions.md"


@pytest.fixture
def clock(client: Client) -> ClockedServer:
    client.store = ClockedServer(client.store, client.names.namespace)
    return client.store


@pytest.fixture
def store(client: Client, clock: ClockedServer) -> SessionStore:
    return SessionStore(client)


async def pages(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """An application with a login, a logout, and a page that says who is there."""
    session, body = scope["session"], b""
    if scope["path"] == "/login":
        await session.login("alice")
    elif scope["path"] == "/logout":
        await session.logout()
    else:
        found = await session.get()
        body = b"" if found is None else str(found.user_id).encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture
def browser(store: SessionStore) -> Browser:
    return Browser(SessionMiddleware(pages, store=store))


def test_7_1_1_timeouts_are_documented() -> None:
    """The how-to states both timeouts, and they are the ones in force."""
    defaults = {name: value.default for name, value in inspect.signature(SessionStore).parameters.items()}
    text = HOWTO.read_text()
    assert f"`idle` is {defaults['idle']}" in text
    assert f"`absolute` is {defaults['absolute']}" in text


async def test_7_1_2_the_number_of_parallel_sessions_is_documented_and_kept(
    client: Client, clock: ClockedServer
) -> None:
    """The how-to says what happens at the cap, and it happens."""
    text = HOWTO.read_text()
    assert "`max_per_user`" in text
    assert "evict_oldest" in text
    store = SessionStore(client, max_per_user=2)
    for _ in range(5):
        await store.create("alice")
    assert len(await store.list_user("alice")) == 2


async def test_7_2_1_tokens_are_verified_by_the_backend(store: SessionStore) -> None:
    """An id is worth what the store says: any change of a single character makes it nobody's."""
    session_id = await store.create("alice")
    for place in range(len(session_id)):
        other = "A" if session_id[place] != "A" else "B"
        assert await store.get(session_id[:place] + other + session_id[place + 1 :]) is None
    assert await store.get(session_id) is not None


async def test_7_2_2_tokens_are_made_anew_for_each_session(store: SessionStore) -> None:
    """No two logins share a token, and none can be computed from another."""
    ids = {await store.create("alice") for _ in range(500)}
    assert len(ids) == 500
    assert len({urlsafe_b64decode(session_id)[16:] for session_id in ids}) == 500


async def test_7_2_3_and_11_5_1_tokens_have_256_bits_from_the_systems_generator(
    store: SessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The secret is 32 bytes of `secrets`, not a UUID: take the source away and the secret is what it gave instead."""
    asked = []

    def zeros(count: int) -> bytes:
        asked.append(count)
        return bytes(count)

    monkeypatch.setattr(secrets, "token_bytes", zeros)
    session_id = await store.create("alice")
    assert asked == [32]
    assert urlsafe_b64decode(session_id)[16:] == bytes(32)


async def test_7_2_4_authentication_makes_a_new_token_and_ends_the_old_one(browser: Browser) -> None:
    """Also when the user authenticates again: the token from before opens nothing any more."""
    await browser.get("/login")
    before = dict(browser.cookies)
    await browser.get("/login")
    assert browser.cookies != before
    assert (await Browser(browser.app, cookies=before).get()).body == b""


async def test_7_3_1_an_inactive_session_ends(browser: Browser, clock: ClockedServer) -> None:
    """After half an hour without a request the user must log in again."""
    await browser.get("/login")
    clock.now_us += 29 * MINUTE
    assert (await browser.get()).body == b"alice"
    clock.now_us += 30 * MINUTE
    assert (await browser.get()).body == b""


async def test_7_3_2_every_session_ends(browser: Browser, clock: ClockedServer) -> None:
    """After twelve hours the user must log in again, however active."""
    await browser.get("/login")
    for _ in range(12 * 3 - 1):
        clock.now_us += 20 * MINUTE
        assert (await browser.get()).body == b"alice"
    clock.now_us += 20 * MINUTE
    assert (await browser.get()).body == b""


async def test_7_4_1_an_ended_session_is_of_no_further_use(browser: Browser, store: SessionStore) -> None:
    """After the logout a copy of the token opens nothing, in no call."""
    await browser.get("/login")
    copy = browser.cookies["__Host-sid"]
    await browser.get("/logout")
    assert (await Browser(browser.app, cookies={"__Host-sid": copy}).get()).body == b""
    for call in (store.get, store.update, store.rotate, store.invalidate):
        assert not await call(copy)


async def test_7_4_2_all_sessions_end_with_the_account(store: SessionStore) -> None:
    """Disabling a user is one call that misses no session."""
    ids = [await store.create("alice", idle=idle, absolute="30d") for idle in ("2m", "30m", "30d")]
    assert await store.invalidate_user("alice") == 3
    assert [await store.get(session_id) for session_id in ids] == [None] * 3


async def test_7_4_3_all_other_sessions_can_be_ended(store: SessionStore) -> None:
    """After a new password the present session stays, the others go."""
    present, other = await store.create("alice"), await store.create("alice")
    assert await store.invalidate_user("alice", except_=present) == 1
    assert await store.get(present) is not None
    assert await store.get(other) is None


async def test_7_4_5_administrators_end_one_users_sessions_or_everybodys(
    server: PrivateServer, store: SessionStore
) -> None:
    """One call for a user, one for all users; sessions of another deployment on the same server stay."""
    async with Client(server.url, namespace="another") as another:
        elsewhere = SessionStore(another)
        kept = await elsewhere.create("alice")
        ids = [await store.create(user) for user in ("alice", "bob", "carol") for _ in range(2)]
        assert await store.invalidate_user("bob") == 2
        assert await store.invalidate_everyone() == 2
        assert [await store.get(session_id) for session_id in ids] == [None] * 6
        assert await elsewhere.get(kept) is not None


async def test_7_5_2_users_see_and_end_their_sessions(store: SessionStore) -> None:
    """The list shows where and when, never a token; each entry can be ended, and only by its own user."""
    mine = await store.create("alice", ip="10.0.0.1", user_agent="Firefox")
    await store.create("alice", ip="172.16.0.9", user_agent="curl")
    shown = {session.ip: session for session in await store.list_user("alice")}
    assert {session.user_agent for session in shown.values()} == {"Firefox", "curl"}
    assert mine not in repr(shown)
    assert not await store.revoke("mallory", shown["172.16.0.9"].ref)
    assert await store.revoke("alice", shown["172.16.0.9"].ref)
    assert [session.ip for session in await store.list_user("alice")] == ["10.0.0.1"]


@pytest.mark.parametrize(
    ("row", "attribute"),
    [("3.3.1", "Secure"), ("3.3.2", "SameSite=Lax"), ("3.3.3", "Path=/"), ("3.3.4", "HttpOnly")],
)
async def test_3_3_the_cookies_attributes(browser: Browser, row: str, attribute: str) -> None:
    """Secure, SameSite, the __Host- prefix with what it demands, HttpOnly; the token is in Set-Cookie alone (3.3.4)."""
    answer = await browser.get("/login")
    name, _, rest = answer["set-cookie"].partition("=")
    token, *attributes = rest.split("; ")
    assert attribute in attributes, row
    assert name.startswith("__Host-")
    assert not any(word.startswith("Domain") for word in attributes)
    assert [key for key, value in answer.headers if token in value] == ["set-cookie"]


async def test_3_3_5_the_cookie_is_far_below_4096_bytes(client: Client, browser: Browser) -> None:
    """Whatever the session holds: its data never travel in the cookie."""
    await browser.get("/login")
    await SessionStore(client).update(browser.cookies["__Host-sid"], {"big": "x" * 10_000})
    await browser.get()
    assert sum(map(len, ["__Host-sid", browser.cookies["__Host-sid"]])) == 74


async def test_16_2_5_tokens_are_in_no_log(browser: Browser, caplog: pytest.LogCaptureFixture) -> None:
    """Beginning and end of a session are logged, by a digest of 256 random bits that leads back to no token."""
    with caplog.at_level(logging.DEBUG):
        await browser.get("/login")
        token = browser.cookies["__Host-sid"]
        await browser.get("/logout")
    assert "session created: " in caplog.text
    assert "session ended: " in caplog.text
    assert token not in caplog.text


async def test_16_5_2_and_3_an_outage_is_neither_a_logout_nor_a_way_in() -> None:
    """While the store is away nobody is let in and nobody thrown out: the answer is 503."""
    with PrivateServer.start("appendonly no") as own:
        async with Client(own.url) as client:
            store = SessionStore(client)
            browser = Browser(SessionMiddleware(pages, store=store))
            await browser.get("/login")
            own.kill()
            assert (await browser.get()).status == 503
            with pytest.raises(SessionsUnavailable):
                await store.get(browser.cookies["__Host-sid"])
