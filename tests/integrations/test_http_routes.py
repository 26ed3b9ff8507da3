"""Routes answered from views, as applications write them: FastAPI, Starlette and Flask over a real server."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Any

import flask
import httpx
import msgspec
import pytest
from fastapi import Depends, FastAPI, Header, HTTPException, Request, Response
from pydantic import BaseModel, Field
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.routing import Route

from cachebus import Cache, SessionStore
from cachebus.clock import now_s
from cachebus.errors import ConfigurationError
from cachebus.gateway import Tickets
from cachebus.integrations import flask as for_flask
from cachebus.integrations import starlette as for_starlette
from cachebus.integrations.asgi import SessionMiddleware
from cachebus.integrations.fastapi import FreshAfter, SignedIn, cached_response, lifespan, respond, signed_in, tickets
from cachebus.integrations.http.body import Body, json_body
from cachebus.integrations.http.renderings import Renderer
from cachebus.sync import Cache as SyncCache
from tests.conftest import Connect
from tests.support.waiting import until


class Holding(msgspec.Struct, frozen=True):
    user_id: int
    value: int
    note: str = "for us only"


class Shown(BaseModel):
    """What the outside sees of a holding."""

    user_id: int = Field(serialization_alias="userId")
    value: int


@dataclass(frozen=True)
class Quote:
    symbol: str
    price: int


async def user(x_user: Annotated[int | None, Header()] = None) -> int:
    if x_user is None:
        raise HTTPException(401, "who?")
    return x_user


User = Annotated[int, Depends(user)]


@asynccontextmanager
async def browsing(app: Any) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="https://test") as client:
        yield client


def shop(cache: Cache, truth: dict[int, int]) -> FastAPI:
    """An application with one view, answered in three ways."""
    app = FastAPI()

    @app.head("/mine", include_in_schema=False)
    @app.get("/mine")
    @cached_response()
    @cache.view("holding:{user_id}", ttl="1m", tags=["user:{user_id}"])
    async def holding(user_id: User) -> Holding:
        """What I hold."""
        if truth[user_id] < 0:
            raise HTTPException(404, "nothing")
        return Holding(user_id, truth[user_id])

    @app.get("/shown", response_model=Shown)
    async def shown(request: Request, user_id: User) -> Response:
        return await respond(request, holding.view, user_id)

    @app.get("/sum")
    async def total(user_id: User, _: FreshAfter) -> int:
        return (await holding.view(user_id)).value + (await holding.view(user_id)).value

    @app.get("/quotes/{symbol}")
    @cached_response(max_age="5s", public=True)
    @cache.view("quote:{symbol}", ttl="1m", not_in_key="limit")
    async def quote(symbol: str, limit: int = 3) -> list[Quote]:
        return [Quote(symbol, each) for each in range(limit)]

    return app


async def test_a_hit_is_a_304_or_the_same_bytes_to_whom_it_is_for(cache: Cache) -> None:
    """One load a user; the endpoint's own authorisation runs before every answer, 304 and stored bytes alike."""
    truth = {7: 70, 8: 80}
    async with browsing(shop(cache, truth)) as client:
        first = await client.get("/mine", headers={"X-User": "7"})
        assert (first.json(), first.headers["cache-control"]) == (
            {"user_id": 7, "value": 70, "note": "for us only"},
            "private, no-cache",
        )
        assert first.headers["cache-status"] == "cachebus; fwd=miss; stored"
        truth[7] = 71  # nobody said so: the value in the cache is right until then
        again = await client.get("/mine", headers={"X-User": "7"})
        assert again.content == first.content
        assert re.fullmatch(r"cachebus; hit; ttl=\d+; detail=(memory|redis)", again.headers["cache-status"])
        mine = {"X-User": "7", "If-None-Match": first.headers["etag"]}
        unchanged = await client.get("/mine", headers=mine)
        assert (unchanged.status_code, unchanged.content) == (304, b"")
        assert (await client.get("/mine", headers={"If-None-Match": "*"})).status_code == 401
        assert (await client.get("/mine", headers={**mine, "X-User": "8"})).json()["value"] == 80
        head = await client.head("/mine", headers={"X-User": "7"})
        assert (head.content, head.headers["content-length"]) == (b"", str(len(first.content)))


async def test_an_answer_says_where_it_is_from(connect: Connect) -> None:
    """The first of two requests at once loads, the other joins it; then memory, and another process's from Redis."""
    here, there = [browsing(shop(await connect(), {7: 70})) for _ in range(2)]
    async with here as client, there as elsewhere:
        mine = {"X-User": "7"}
        at_once = await asyncio.gather(*[client.get("/mine", headers=mine) for _ in range(2)])
        later = [await client.get("/mine", headers=mine), await elsewhere.get("/mine", headers=mine)]
    said = [re.sub(r" ttl=\d+;", "", each.headers["cache-status"]) for each in (*at_once, *later)]
    assert sorted(said[:2]) == ["cachebus; fwd=miss; stored", "cachebus; hit; detail=joined"]
    assert said[2] == "cachebus; hit; detail=memory"
    assert said[3] in {"cachebus; hit; detail=redis", "cachebus; hit; detail=joined"}  # by clocks of two machines


async def test_after_an_invalidation_no_request_gets_the_old_body(connect: Connect) -> None:
    """In the other process either, where the request names the clock; also for reads inside an endpoint."""
    truth = {7: 1}
    here, there = await connect(), await connect()
    async with browsing(shop(here, truth)) as one, browsing(shop(there, truth)) as other:
        for client in (one, other):
            assert (await client.get("/mine", headers={"X-User": "7"})).json()["value"] == 1
        for value in range(2, 40):
            truth[7] = value
            asking = {"X-User": "7", "Fresh-After": await here.invalidate(tags=["user:7"])}
            expected = {
                "/mine": {"user_id": 7, "value": value, "note": "for us only"},
                "/sum": 2 * value,
                "/shown": {"userId": 7, "value": value},
            }
            first = list(expected)[value % 3]  # before the other process has heard of it
            for path in (first, *expected):
                assert (await other.get(path, headers=asking)).json() == expected[path]
            tag = (await one.get("/mine", headers={"X-User": "7"})).headers["etag"]
            assert (await other.get("/mine", headers={**asking, "If-None-Match": tag})).status_code == 304


@pytest.mark.parametrize("path", ["/mine", "/sum", "/shown"])
async def test_a_process_that_has_not_heard_of_a_change_answers_no_older(connect: Connect, path: str) -> None:
    """Its journal is late, its memory holds the old body: a request that names the clock gets the new one."""
    truth = {7: 1}
    here, there = await connect(), await connect()
    async with browsing(shop(here, truth)) as one, browsing(shop(there, truth)) as other:
        await until(lambda: there.reader.freshness.hears(now_s()))  # type: ignore[union-attr]
        before = await other.get(path, headers={"X-User": "7"})
        there.reader._journal.reached = lambda clock, timeout_s: asyncio.sleep(0, False)  # type: ignore[union-attr,method-assign]
        there.reader.freshness.applied = lambda record: True  # type: ignore[union-attr,method-assign]
        truth[7] = 2
        asking = {"X-User": "7", "Fresh-After": await here.invalidate(tags=["user:7"])}
        for _ in range(2):
            answer = await other.get(path, headers=asking | {"If-None-Match": before.headers.get("etag", "")})
            assert answer.json() == (await one.get(path, headers={"X-User": "7"})).json() != before.json()


@pytest.mark.parametrize("clock", ["no clock", "9" * 60_000, "1.abc, 2.abc", "\xff\xfe", "999999999999999999.0badc0de"])
async def test_no_header_makes_an_error(cache: Cache, clock: str) -> None:
    """Clocks that are none, from another era, or huge: the ledger is asked, the answer is right."""
    async with browsing(shop(cache, {7: 1})) as client:
        headers = {b"x-user": b"7", b"fresh-after": clock.encode("latin-1"), b"if-none-match": b'"' * 50_000}
        answers = [await client.get(path, headers=headers) for path in ("/mine", "/mine", "/sum")]
        assert [answer.status_code for answer in answers] == [200, 200, 200]


async def test_a_routes_response_model_is_what_is_sent(cache: Cache) -> None:
    """Fields that a route leaves out stay inside; the same value has another body, and another tag, elsewhere."""
    async with browsing(shop(cache, {7: 1})) as client:
        shown = [await client.get("/shown", headers={"X-User": "7"}) for _ in range(2)]
        assert [each.json() for each in shown] == [{"userId": 7, "value": 1}] * 2
        mine = await client.get("/mine", headers={"X-User": "7", "If-None-Match": shown[0].headers["etag"]})
        assert mine.status_code == 200


async def test_a_view_of_pydantic_models_is_answered_as_fastapi_would(cache: Cache) -> None:
    """Lists of models, under their aliases, once with `response_model` and once without; then 304."""
    app = FastAPI()

    @app.get("/listed")
    @cached_response()
    @cache.view("listed", ttl="1m")
    async def listed() -> list[Shown]:
        return [Shown(user_id=7, value=1)]

    @app.get("/bare")
    async def bare(request: Request) -> Response:
        return await for_starlette.respond(request, listed.view)

    async with browsing(app) as client:
        for path in ("/listed", "/bare"):
            first = await client.get(path)
            assert first.json() == [{"userId": 7, "value": 1}]
            again = await client.get(path, headers={"If-None-Match": first.headers["etag"]})
            assert (again.status_code, again.content) == (304, b"")


async def test_a_view_that_is_a_method_is_answered_for_its_object(cache: Cache) -> None:
    """By `respond`, and as a route of one object; without an object the route is refused where it is declared."""
    app = FastAPI()

    class Orders:
        def __init__(self, tenant: str) -> None:
            self.tenant = tenant

        @cache.view("orders:{self.tenant}:{day}", ttl="1m")
        async def of(self, day: int) -> list[str]:
            return [self.tenant, str(day)]

    @app.get("/{tenant}/{day}")
    async def show(request: Request, tenant: str, day: int) -> Response:
        return await respond(request, Orders(tenant).of, day)

    app.get("/acme-only/orders/{day}")(cached_response()(Orders("acme").of))
    other = Starlette(routes=[Route("/{day}", for_starlette.cached_response()(Orders("umbrella").of))])
    async with browsing(app) as client, browsing(other) as plain:
        assert (await client.get("/globex/1")).json() == ["globex", "1"]
        first = await client.get("/acme/1")
        assert first.json() == ["acme", "1"]
        again = await client.get("/acme-only/orders/1", headers={"If-None-Match": first.headers["etag"]})
        assert (again.status_code, again.headers["cache-status"].startswith("cachebus; hit")) == (304, True)
        assert (await client.get("/acme-only/orders/x")).status_code == 422
        assert (await plain.get("/2")).json() == ["umbrella", "2"]
    for decorator in (cached_response, for_starlette.cached_response):
        with pytest.raises(ConfigurationError, match=r"is a method, and a route has no object to call it on: give"):
            decorator()(Orders.of)


async def test_a_route_keeps_its_place_in_openapi(cache: Cache) -> None:
    """Parameters, dependencies, docstring and response model, and nothing of ours."""
    async with browsing(shop(cache, {})) as client:
        paths = (await client.get("/openapi.json")).json()["paths"]
        assert [each["name"] for each in paths["/quotes/{symbol}"]["get"]["parameters"]] == ["symbol", "limit"]
        assert [each["name"] for each in paths["/mine"]["get"]["parameters"]] == ["x-user"]
        assert paths["/mine"]["get"]["description"] == "What I hold."
        schema = paths["/quotes/{symbol}"]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
        assert schema["items"] == {"$ref": "#/components/schemas/Quote"}


async def test_an_error_is_answered_as_ever_and_not_kept(cache: Cache) -> None:
    """What the view raises reaches the framework; the next request loads again."""
    truth = {7: -1}
    async with browsing(shop(cache, truth)) as client:
        missing = await client.get("/mine", headers={"X-User": "7", "If-None-Match": "*"})
        assert (missing.status_code, "etag" in missing.headers) == (404, False)
        truth[7] = 5
        assert (await client.get("/mine", headers={"X-User": "7"})).json()["value"] == 5


async def test_a_body_is_made_once_of_each_value(connect: Connect) -> None:
    """Whatever reads it, until its value is invalidated; its bytes count as memory, and too large a one is not kept."""
    cache = await connect(max_memory_bytes=100_000)
    made: list[Any] = []

    def make(value: Any) -> Body:
        made.append(value)
        return json_body(value)

    @cache.view("list:{size}", ttl="1m")
    async def numbers(size: int) -> tuple[int, ...]:
        return (1000,) * size

    renderer = Renderer(make)
    bodies = [(await renderer.read(numbers, (1000,), {})).made for _ in range(5)]
    assert len({id(body) for body in bodies}) == 1
    assert len(made) == 1
    assert cache.stats().bytes > 1000 * 3 + len(bodies[0])
    await numbers.invalidate(1000)
    await renderer.read(numbers, (1000,), {})
    assert len(made) == 2
    for _ in range(2):  # its value fits, with its body it does not
        await renderer.read(numbers, (15_000,), {})
    assert len(made) == 4
    assert cache.stats().bytes <= 100_000


async def test_beside_a_session_nothing_is_kept(cache: Cache) -> None:
    """A response that sets the cookie is no-store; one that looked at the session varies by it; both may be 304."""
    store = SessionStore(cache)
    app = FastAPI()
    app.include_router(tickets(Tickets(cache)))

    @cache.view("page", ttl="1m")
    async def page() -> str:
        return "same for all"

    @app.get("/page")
    async def show(request: Request, session: SignedIn) -> Response:
        if "rotate" in request.query_params:
            await request.scope["session"].rotate()
        assert session.user_id == 7
        return await respond(request, page)

    guarded = SessionMiddleware(app, store=store)  # type: ignore[arg-type] # an ASGI application
    async with browsing(guarded) as client:
        assert (await client.get("/page", headers={"If-None-Match": "*"})).status_code == 401
        assert (await client.post("/ticket")).status_code == 401
        client.cookies.set("__Host-sid", await store.create(7))
        seen = await client.get("/page")
        assert (seen.headers["cache-control"], seen.headers["vary"]) == ("private, no-cache", "Cookie")
        issued = await client.post("/ticket")
        assert issued.headers["cache-control"] == "no-store"
        assert (await Tickets(cache).take(issued.json()["ticket"])) is not None
        rotated = await client.get("/page?rotate", headers={"If-None-Match": seen.headers["etag"]})
        assert (rotated.status_code, rotated.headers["cache-control"]) == (304, "no-store")


async def test_a_missing_session_middleware_is_named() -> None:
    """Also where Starlette's own has put a dictionary there."""
    for scope in ({"type": "http"}, {"type": "http", "session": {}}):
        with pytest.raises(ConfigurationError, match=r"signed_in: the application needs SessionMiddleware"):
            await signed_in(Request(scope))


async def test_a_middleware_that_compresses_leaves_a_tag_that_is_true(cache: Cache) -> None:
    """Compressed or not, the tag is weak, and the 304 comes."""

    @cache.view("text:{name}", ttl="1m")
    async def text(name: str) -> str:
        return name * 1000

    route = Route("/{name}", for_starlette.cached_response(media_type="text/plain")(text))
    app = Starlette(routes=[route], middleware=[Middleware(GZipMiddleware)], lifespan=for_starlette.lifespan(cache))
    async with browsing(app) as client:
        packed = await client.get("/ab")
        plain = await client.get("/ab", headers={"Accept-Encoding": "identity"})
        assert packed.text == plain.text == "ab" * 1000
        assert packed.headers["content-encoding"] == "gzip"
        assert packed.headers["etag"] == plain.headers["etag"]
        assert (await client.get("/ab", headers={"If-None-Match": packed.headers["etag"]})).status_code == 304


async def test_a_lifespan_opens_in_order_and_closes_in_reverse() -> None:
    """Parts with a life of their own, and parts that only close."""
    log: list[str] = []

    @asynccontextmanager
    async def part() -> AsyncIterator[None]:
        log.append("opened")
        yield
        log.append("closed")

    class Closing:
        async def close(self) -> None:
            log.append("closed first")

    async with lifespan(part(), Closing())(None):
        log.append("serving")
    assert log == ["opened", "serving", "closed first", "closed"]


def test_a_type_that_is_only_there_for_the_checker_is_named() -> None:
    """FastAPI reads the types when the application starts; the error says which, before FastAPI fails at it."""
    cache = Cache.memory()

    async def view(name: str) -> int:
        return len(name)

    view.__annotations__["name"] = "Missing"
    with pytest.raises(ConfigurationError, match=r"name 'Missing' is not defined; FastAPI needs the types"):
        cached_response()(cache.view("a:{name}", ttl="1m")(view))


def flask_shop(cache: SyncCache, load: Callable[[int], int]) -> flask.Flask:
    """The same in Flask."""
    app = flask.Flask(__name__)
    for_flask.init_fresh_after(app)

    @app.get("/holding/<int:user_id>")
    @for_flask.cached_response()
    @cache.view("holding:{user_id}", ttl="1m", tags=["user:{user_id}"])
    def holding(user_id: int) -> dict[str, int]:
        return {"value": load(user_id)}

    @app.get("/sum/<int:user_id>")
    def total(user_id: int) -> str:
        return str(2 * holding.view(user_id)["value"])

    return app


@pytest.fixture
def flask_cache(server: Any, namespace: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("REDIS_URL", server.url)
    monkeypatch.setenv("CACHE_NAMESPACE", namespace)
    with SyncCache.from_env() as cache:
        yield cache


def test_flask_answers_the_same(flask_cache: SyncCache) -> None:
    """304, HEAD, Fresh-After; the load runs in the request's own thread."""
    truth, threads = {7: 1}, set()

    def load(user_id: int) -> int:
        threads.add(threading.get_ident())
        return truth[user_id]

    browser = flask_shop(flask_cache, load).test_client()
    first = browser.get("/holding/7")
    assert (first.json, first.headers["Cache-Control"]) == ({"value": 1}, "private, no-cache")
    for _ in range(3):
        unchanged = browser.get("/holding/7", headers={"If-None-Match": f'"x", {first.headers["ETag"]}'})
        assert (unchanged.status_code, unchanged.data) == (304, b"")
        assert unchanged.headers["ETag"] == first.headers["ETag"]
    head = browser.head("/holding/7")
    assert (head.data, head.headers["Content-Length"]) == (b"", str(len(first.data)))
    for value in range(2, 10):
        truth[7] = value
        asking = {"Fresh-After": flask_cache.invalidate(tags=["user:7"])}
        assert browser.get("/holding/7", headers=asking).json == {"value": value}
        assert browser.get("/sum/7", headers=asking).text == str(2 * value)
    assert threads == {threading.get_ident()}
    assert (
        browser.get("/holding/7", headers={"If-None-Match": "é, " + '"' * 9000, "Fresh-After": "é"}).status_code == 200
    )
