"""What FastAPI's routes and dependencies declare, in answers from the cache; mistakes in the decorators."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, StreamingResponse
from pydantic import BaseModel

from cachebus import Cache
from cachebus.errors import ConfigurationError
from cachebus.integrations import flask as for_flask
from cachebus.integrations import starlette as for_starlette
from cachebus.integrations.fastapi import cached_response, lifespan
from cachebus.sync import Cache as SyncCache
from tests.integrations.test_http_routes import browsing


class Optional(BaseModel):
    value: int
    note: str | None = None


async def test_what_dependencies_set_is_sent(cache: Cache) -> None:
    """Headers and status on hits and misses alike; who gets a cookie keeps nothing."""

    async def visit(request: Request, response: Response) -> None:
        response.headers["X-Trace"] = request.headers["x-trace"]
        response.headers["Vary"] = "X-Trace"
        if "status" in request.query_params:
            response.status_code = 203
        if "cookie" in request.query_params:
            response.set_cookie("who", "you")
            response.set_cookie("seen", "once")

    app = FastAPI()

    @app.get("/page", dependencies=[Depends(visit)])
    @cached_response(max_age="1m")
    @cache.view("page", ttl="1m")
    async def page() -> str:
        return "same for all"

    async with browsing(app) as client:
        for trace in ("1", "2"):
            answer = await client.get("/page", headers={"X-Trace": trace})
            assert (answer.headers["x-trace"], answer.headers["cache-control"]) == (trace, "private, max-age=60")
            assert answer.headers["vary"] == "Cookie, Authorization, X-Trace"
        unchanged = await client.get("/page", headers={"X-Trace": "3", "If-None-Match": answer.headers["etag"]})
        assert (unchanged.status_code, unchanged.headers["x-trace"]) == (304, "3")
        given = await client.get("/page?cookie&status", headers={"X-Trace": "4"})
        assert [each.split(";")[0] for each in given.headers.get_list("set-cookie")] == ["who=you", "seen=once"]
        assert (given.status_code, given.headers["cache-control"]) == (203, "no-store")


async def test_what_a_route_declares_is_sent(cache: Cache) -> None:
    """Its status, class and what its model leaves out."""
    app, pages = FastAPI(default_response_class=HTMLResponse), APIRouter()

    @app.get("/copied", status_code=203, response_class=JSONResponse)
    @cached_response()
    @cache.view("copied", ttl="1m")
    async def copied() -> dict[str, int]:
        return {"value": 1}

    @app.get("/html")
    @pages.get("/html")
    @cached_response()
    @cache.view("html", ttl="1m")
    async def html() -> str:
        return "<p>é</p>"

    @app.get("/brief", response_class=JSONResponse, response_model=Optional, response_model_exclude_unset=True)
    @cached_response()
    @cache.view("brief", ttl="1m")
    async def brief() -> dict[str, int]:
        return {"value": 1}

    @app.get("/none", response_model_exclude_none=True, response_class=JSONResponse)
    @cached_response()
    @cache.view("none", ttl="1m")
    async def none() -> Optional:
        return Optional(value=1)

    app.include_router(pages, prefix="/included")
    async with browsing(app) as client:
        for _ in range(2):
            first = await client.get("/copied")
            assert (first.status_code, first.json()) == (203, {"value": 1})
            for path in ("/html", "/included/html"):
                page = await client.get(path)
                assert (page.text, page.headers["content-type"]) == ("<p>é</p>", "text/html; charset=utf-8")
            assert (await client.get("/brief")).json() == (await client.get("/none")).json() == {"value": 1}
        assert (await client.get("/copied", headers={"If-None-Match": first.headers["etag"]})).status_code == 304


async def test_what_a_stored_answer_cannot_do_is_said(cache: Cache) -> None:
    """A load that sets headers, fields that were left unset, a class that streams: at the first request at the latest.

    The lifespan names all of them before it opens anything; what depends on the value waits for it.
    """
    app = FastAPI()

    @cache.view("set", ttl="1m", not_in_key="response")
    async def sets(response: Response) -> int:
        return 1

    with pytest.raises(
        ConfigurationError, match=r"parameter 'response' is a Response.*set headers and cookies in a dep"
    ):
        cached_response()(sets)

    @cache.view("model", ttl="1m")
    async def model() -> Optional:
        return Optional(value=1)

    @cache.view("either", ttl="1m")
    async def either() -> Optional | dict[str, int]:
        return {"value": 1}

    router = APIRouter()
    router.get("/unset", response_model_exclude_unset=True)(cached_response()(model))
    app.get("/either", response_model_exclude_unset=True)(cached_response()(either))
    app.get("/fine", response_model_exclude_defaults=True)(cached_response()(model))
    app.get("/unset", response_model_exclude_unset=True)(cached_response()(model))
    app.get("/stream", response_class=StreamingResponse)(cached_response()(model))
    app.get("/bare", response_model=None, response_model_exclude_none=True)(cached_response()(model))
    async with browsing(app) as client:
        with pytest.raises(ConfigurationError, match=r"route '/unset': response_model_exclude_unset: a cached model"):
            await client.get("/unset")
        with pytest.raises(ConfigurationError, match=r"route '/stream': response_class=StreamingResponse"):
            await client.get("/stream")
        with pytest.raises(
            ConfigurationError, match=r"route '/bare': response_model_exclude_none: it needs a response_m"
        ):
            await client.get("/bare")
    app.include_router(router, prefix="/more")
    with pytest.raises(ConfigurationError) as refused:
        async with lifespan(cache)(app):
            pass
    named = [line.partition(": response_")[0] for line in str(refused.value).splitlines()]
    assert named == ["route '/unset'", "route '/stream'", "route '/bare'", "route '/more/unset'"]


@pytest.mark.parametrize("kind", [cached_response, for_starlette.cached_response, for_flask.cached_response])
def test_a_mistake_in_the_decorators_is_named(kind: Any) -> None:
    """No parentheses, the cache of the other kind, no view at all."""

    async def load() -> int:
        return 1

    def plain() -> int:
        return 1

    asynchronous, sync = Cache.memory().view("a", ttl="1m")(load), SyncCache(Cache.memory()).view("b", ttl="1m")(plain)
    for view in (asynchronous, sync):
        with pytest.raises(ConfigurationError, match=r"^write @cached_response\(\), with parentheses"):
            kind(view)
    flask_one = kind is for_flask.cached_response
    other = "view 'a' is of the asynchronous cache: Flask" if flask_one else "view 'b' is of cachebus.sync: FastAPI and"
    with pytest.raises(ConfigurationError, match=other):
        kind()(asynchronous if flask_one else sync)
    with pytest.raises(ConfigurationError, match="is no view; cached_response stands directly above"):
        kind()(plain)
