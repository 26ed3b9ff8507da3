"""The session middleware: the cookie, what caches are told, who ends whose session, what an outage looks like."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from cachebus import Cache
from cachebus.errors import ConfigurationError
from cachebus.integrations.asgi import SessionMiddleware
from cachebus.redis.client import Client
from cachebus.sessions.store import SessionStore
from cachebus.testing.server import PrivateServer
from tests.support.asgi_browser import Browser, handshake
from tests.support.server_watch import WatchedServer

COOKIE = "__Host-sid"


async def whoami(request: Request) -> Response:
    session = await request.session.get()
    assert await request.session.get() is session
    headers = {"vary": "accept, cookie"} if "says" in request.headers else None
    return JSONResponse(None if session is None else [session.user_id, session.data, session.ip], headers=headers)


async def login(request: Request) -> Response:
    await request.session.login(7, {"via": "password"})
    return PlainTextResponse("in", headers={"cache-control": "public, max-age=60", "vary": "Accept"})


async def cart(request: Request) -> Response:
    session = await request.session.update({"cart": [1]}, remove=["via"])
    return JSONResponse(None if session is None else session.data)


async def rotate(request: Request) -> Response:
    await request.session.rotate()
    return PlainTextResponse("rotated")


async def logout(request: Request) -> Response:
    await request.session.logout()
    return PlainTextResponse("out")


async def password(request: Request) -> Response:
    await request.session.rotate()
    return JSONResponse(await request.session.logout_others())


async def static(request: Request) -> Response:
    return PlainTextResponse("same for all", headers={"cache-control": "public"})


async def late(request: Request) -> Response:
    async def body() -> Any:
        yield b"begun"
        await request.session.login(7)

    return StreamingResponse(body())


async def field(request: Request) -> Response:
    with pytest.raises(RuntimeError, match=r"await session\.get"):
        _ = request.session["via"]
    if await request.session.get() is None:
        with pytest.raises(KeyError):
            _ = request.session["via"]
        return JSONResponse(None)
    return JSONResponse([request.session["via"], request.session["ip"], request.session["user_id"]])


async def live(socket: WebSocket) -> None:
    session = await socket.session.get()
    await socket.accept()
    await socket.send_json(None if session is None else session.user_id)
    await socket.close()


PAGES = (field, whoami, login, cart, rotate, logout, password, static, late)


def application(store: SessionStore, **options: Any) -> Starlette:
    return Starlette(
        routes=[*[Route(f"/{page.__name__}", page) for page in PAGES], WebSocketRoute("/live", live)],
        middleware=[Middleware(SessionMiddleware, store=store, **options)],
    )


@pytest.fixture
def store(client: Client) -> SessionStore:
    client.store = WatchedServer(client.store)
    return SessionStore(client)


@pytest.fixture
def browser(store: SessionStore) -> Browser:
    return Browser(application(store))


async def test_a_login_gives_one_cookie_that_only_this_host_can_read_and_set(browser: Browser) -> None:
    """Exactly the attributes of OWASP ASVS 3.3, no lifetime beyond the browser's, and 4,096 bytes are far away."""
    answer = await browser.get("/login")
    name, _, rest = answer["set-cookie"].partition("=")
    session_id, *attributes = rest.split("; ")
    assert name == COOKIE
    assert attributes == ["Path=/", "Secure", "HttpOnly", "SameSite=Lax"]
    assert len(session_id) == 64
    assert len(answer["set-cookie"]) < 200
    assert session_id not in answer.body.decode() + str([value for key, value in answer.headers if key != "set-cookie"])


async def test_fields_are_read_by_name_once_the_session_was_read(browser: Browser) -> None:
    """`request.session["ip"]` answers after `get()`; before it says what to write, and for nobody it is a KeyError."""
    assert json.loads((await browser.get("/field")).body) is None
    await browser.get("/login")
    assert json.loads((await browser.get("/field")).body) == ["password", "203.0.113.9", 7]


async def test_an_application_with_sessions_runs_without_a_server() -> None:
    """Over `Cache.memory()`, made at import time and never entered: login, read, rotation and logout work."""
    cache = Cache.memory()
    browser = Browser(application(SessionStore(cache)))
    assert json.loads((await browser.get("/whoami")).body) is None
    await browser.get("/login")
    await browser.get("/rotate")
    assert json.loads((await browser.get("/whoami")).body) == [7, {"via": "password"}, "203.0.113.9"]
    await browser.get("/logout")
    assert json.loads((await browser.get("/whoami")).body) is None
    await cache.close()


async def test_a_response_with_the_cookie_is_stored_by_no_cache(browser: Browser) -> None:
    """Whatever the page said about caching, Set-Cookie goes with no-store and nothing else, and varies by cookie."""
    answer = await browser.get("/login")
    assert answer["cache-control"] == "no-store"
    assert answer["vary"] == "Accept, Cookie"


async def test_a_page_that_looked_at_the_session_varies_by_cookie_and_no_other(browser: Browser) -> None:
    """Personal pages are not served to others from a cache; pages that never asked stay cacheable."""
    await browser.get("/login")
    assert (await browser.get("/whoami"))["vary"] == "Cookie"
    assert (await browser.get("/whoami", says="it already"))["vary"] == "accept, cookie"
    same = await browser.get("/static")
    assert (same["vary"], same["cache-control"], same["set-cookie"]) == ("", "public", "")


async def test_a_session_is_read_once_and_only_when_asked_for(client: Client, browser: Browser) -> None:
    """A page that does not look costs the store nothing; a request without a cookie neither."""
    await browser.get("/login")
    watched = client.store = WatchedServer(client.store)  # type: ignore[assignment]
    await browser.get("/static")
    await Browser(browser.app).get("/whoami")
    assert watched.commands == []
    await browser.get("/whoami")
    assert [verb for verb, _ in watched.commands] == ["sessions/read"]


async def test_a_user_logs_in_works_and_logs_out(browser: Browser) -> None:
    """The life of a session as a browser sees it, with Starlette's own `request.session`."""
    assert json.loads((await browser.get("/whoami")).body) is None
    assert (await browser.get("/cart")).body == b"null"
    await browser.get("/login")
    assert json.loads((await browser.get("/whoami")).body) == [7, {"via": "password"}, "203.0.113.9"]
    assert json.loads((await browser.get("/cart")).body) == {"cart": [1]}
    left = await browser.get("/logout")
    assert left["set-cookie"] == f"{COOKIE}=; Max-Age=0; Path=/; Secure; HttpOnly; SameSite=Lax"
    assert left["clear-site-data"] == '"cache", "storage"'
    assert browser.cookies == {}
    assert json.loads((await browser.get("/whoami")).body) is None


async def test_an_id_that_the_client_brought_never_becomes_a_session(
    client: Client, store: SessionStore, browser: Browser
) -> None:
    """The victim who logs in with an attacker's cookie gets a new one; the attacker's stays nobody's (starsessions)."""
    for planted in ("attackerchosen", "A" * 64):
        victim = Browser(browser.app, cookies={COOKIE: planted})
        await victim.get("/whoami")
        assert await client.store.call("KEYS", f"{client.names.namespace}:*") == []
        await victim.get("/login")
        assert victim.cookies[COOKIE] != planted
        attacker = Browser(browser.app, cookies={COOKIE: planted})
        assert json.loads((await attacker.get("/whoami")).body) is None
        await store.invalidate_user(7)


async def test_a_login_ends_the_session_it_replaces_at_once(browser: Browser, store: SessionStore) -> None:
    """Whoever shares the cookie from before the login does not share the login: there is no overlap here."""
    await browser.get("/login")
    before = browser.cookies[COOKIE]
    await browser.get("/login")
    assert browser.cookies[COOKIE] != before
    assert json.loads((await Browser(browser.app, cookies={COOKIE: before}).get("/whoami")).body) is None
    assert len(await store.list_user(7)) == 1


async def test_requests_under_way_outlive_a_rotation_and_take_no_cookie_away(browser: Browser) -> None:
    """Old cookies are served during the overlap, and no answer to one replaces or deletes the new cookie."""
    await browser.get("/login")
    old = browser.cookies[COOKIE]
    slow = [Browser(browser.app, cookies={COOKIE: old}) for _ in range(20)]
    first, *others = await asyncio.gather(
        browser.get("/rotate"), *[one.get("/rotate" if n % 4 == 0 else "/whoami") for n, one in enumerate(slow)]
    )
    answers = [first, *others]
    assert sum(bool(answer["set-cookie"]) for answer in answers) == 1
    assert all(answer.body not in {b"null", b""} for answer in answers)


async def test_an_unknown_cookie_is_left_alone(browser: Browser) -> None:
    """An answer to a request that was too late cannot delete the cookie that another answer has just set."""
    stale = Browser(browser.app, cookies={COOKIE: "A" * 64})
    answer = await stale.get("/whoami")
    assert (answer.body, answer["set-cookie"]) == (b"null", "")


async def test_two_cookies_of_the_name_are_a_planted_one(browser: Browser) -> None:
    """With two values nobody can say which is ours, so it is nobody; twice the same value is one."""
    await browser.get("/login")
    mine = f"{COOKIE}={browser.cookies[COOKIE]}"
    asked = Browser(browser.app)
    assert (await asked.get("/whoami", cookie=f"{mine}; {COOKIE}=planted")).body == b"null"
    assert (await asked.get("/whoami", cookie=f"a=b;{mine}; {mine}")).body != b"null"
    assert (await asked.get("/whoami", cookie=f"x{mine}; y={mine}")).body == b"null"


async def test_after_a_change_of_password_only_this_session_is_left(browser: Browser) -> None:
    """The others of the user end in one call; this browser goes on under a new id."""
    others = [Browser(browser.app) for _ in range(3)]
    for one in (browser, *others):
        await one.get("/login")
    assert (await browser.get("/password")).body == b"3"
    assert (await browser.get("/whoami")).body != b"null"
    assert [(await one.get("/whoami")).body for one in others] == [b"null"] * 3


async def test_an_outage_is_a_503_and_keeps_the_cookie() -> None:
    """While the store is away nobody looks logged out: the answer says try again, and takes nothing away."""
    with PrivateServer.start("appendonly no") as own:
        async with Client(own.url) as client:
            browser = Browser(application(SessionStore(client)))
            await browser.get("/login")
            own.kill()
            for page in ("/whoami", "/login", "/logout", "/rotate"):
                answer = await browser.get(page)
                assert (answer.status, answer["retry-after"], answer["cache-control"]) == (503, "1", "no-store")
                assert (answer["set-cookie"], answer["content-type"]) == ("", "application/problem+json")
            assert (await browser.get("/static")).status == 200
            assert COOKIE in browser.cookies


async def test_a_login_after_the_response_began_is_an_error(browser: Browser) -> None:
    """A cookie that cannot be sent any more is not pretended to be."""
    with pytest.raises(RuntimeError, match="the response has begun"):
        await browser.get("/late")


async def test_a_websocket_has_the_session_of_its_handshake(browser: Browser) -> None:
    """Without a cookie it is nobody's; lifespan and other scopes pass untouched."""
    sent = await handshake(browser.app, "/live")
    assert [message["type"] for message in sent] == ["websocket.accept", "websocket.send", "websocket.close"]
    assert sent[1]["text"] == "null"


async def test_no_log_line_has_the_cookie(browser: Browser, caplog: pytest.LogCaptureFixture) -> None:
    """Not at any level, not when something fails."""
    with caplog.at_level(logging.DEBUG):
        await browser.get("/login")
        ids = [browser.cookies[COOKIE]]
        await browser.get("/rotate")
        ids.append(browser.cookies[COOKIE])
        await browser.get("/logout")
        with pytest.raises(RuntimeError) as failed:
            await Browser(browser.app, cookies={COOKIE: ids[1]}).get("/late")
    told = caplog.text + repr(failed.value)
    assert told.count("session ") == 3
    assert not any(session_id in told for session_id in ids)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"cookie": "sid"}, "__Host-"),
        ({"cookie": "__Host-"}, "__Host-"),
        ({"cookie": "__Host-a;b"}, "__Host-"),
        ({"same_site": "None"}, "Lax, Strict"),
        ({"proxies": "1"}, "proxies"),
    ],
)
def test_a_cookie_that_would_not_be_safe_is_refused(store: SessionStore, options: dict[str, Any], says: str) -> None:
    """A name without the prefix, or a cookie sent to every site, is an error when the application is built."""
    with pytest.raises(ConfigurationError, match=says):
        SessionMiddleware(application(store), store=store, **options)
