"""The page's addresses: its files, what it shows as JSON, the live tail, and what an admin may do."""

from __future__ import annotations

import gzip
import hashlib
import time
from collections.abc import Awaitable, Callable
from functools import lru_cache, partial
from importlib.resources import files
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from cachebus.bus.backlog import known_shards
from cachebus.cache.cache import Cache
from cachebus.errors import (
    ConfigurationError,
    LockUnavailable,
    PublishRefused,
    RecordingUnderWay,
    ServerError,
    SessionsUnavailable,
)
from cachebus.monitoring.page.access import COOKIE, Access, RequestRefused
from cachebus.monitoring.page.answers import HEADERS, json_answer
from cachebus.monitoring.page.desk import Desk
from cachebus.monitoring.page.watching import SocketsOf, Watching
from cachebus.monitoring.verdict.gathering import Gathering
from cachebus.redis.client import Client
from cachebus.schedules.scheduler import Scheduler
from cachebus.sessions.store import SessionStore

Endpoint = Callable[[Request], Awaitable[Response]]

TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
    "txt": "text/plain; charset=utf-8",
}
SHARDS_S = 30.0


class LivePage:
    """The live page of one deployment. Connects, and costs anything, when somebody first looks.

    *sessions*: where admins' sessions are looked up (data `{"role": "admin"}`, cookie *cookie*). *scheduler*: runs jobs
    in this process when asked to; without it a worker does. *sockets_of*: how many sockets follow a topic here.
    *shards*: 0 for those that workers are at work on. *open_to_all*: whoever reaches the page may look.
    """

    def __init__(  # noqa: PLR0913 - each is a part that a process may have beside the cache
        self,
        cache: Cache,
        *,
        sessions: SessionStore | None = None,
        scheduler: Scheduler | None = None,
        sockets_of: SocketsOf | None = None,
        shards: int = 0,
        cookie: str = COOKIE,
        open_to_all: bool = False,
    ) -> None:
        self._cache = cache
        self._sessions = sessions
        self._scheduler = scheduler
        self._sockets_of = sockets_of
        self._shards = shards
        self._cookie = cookie
        self._open_to_all = open_to_all
        self._desk: tuple[Client, int, Desk] | None = None
        self._counted_shards = (-SHARDS_S, 1)

    def routes(self) -> list[BaseRoute]:
        """Return everything to mount: `/`, and the rest below `/page/`. Links are relative, any prefix will do."""
        fixed = [Route(f"/page/{name}", partial(_static, name)) for name in static_files() if name != "page.html"]
        shown = Route("/page/api/{name}", self._answered(Desk.look), methods=["GET"])
        done = Route("/page/api/{name:path}", self._answered(Desk.act), methods=["POST"])
        return [Route("/", partial(_static, "page.html")), *fixed, shown, done]

    def _answered(self, answer: Callable[[Desk, Request], Awaitable[Response]]) -> Endpoint:
        """Turn what goes wrong into an answer that the page can show."""

        async def answered(request: Request) -> Response:
            try:
                return await answer(await self._connected(), request)
            except RequestRefused as refused:
                return json_answer({"error": str(refused)}, refused.status)
            except (ConfigurationError, PublishRefused, msgspec.DecodeError, UnicodeError) as bad:
                return json_answer({"error": str(bad)}, 400)
            except RecordingUnderWay as busy:
                return json_answer({"error": str(busy)}, 409)
            except (ServerError, SessionsUnavailable, LockUnavailable):
                return json_answer({"error": "Redis is unavailable"}, 503)

        return answered

    async def _connected(self) -> Desk:
        await self._cache.connected()
        client, shards = self._cache.client, await self._shards_now()
        if self._desk is None or self._desk[:2] != (client, shards):  # the first time, or in another loop than before
            sessions = self._sessions or SessionStore(client)
            access = Access(client, sessions, cookie=self._cookie, open_to_all=self._open_to_all)
            gathering = Gathering(client, shards=shards, scheduler=self._scheduler)
            watching = Watching(client, shards=shards, sockets_of=self._sockets_of)
            self._desk = client, shards, Desk(self._cache, access, sessions, gathering, watching)
        return self._desk[2]

    async def _shards_now(self) -> int:
        """Return how many shards there are, counting them now and then where nobody said it."""
        if self._shards:
            return self._shards
        counted_at, shards = self._counted_shards
        if time.monotonic() - counted_at >= SHARDS_S:
            try:
                shards = max(shards, await known_shards(self._cache.client))
            except ServerError:
                return shards
            self._counted_shards = time.monotonic(), shards
        return shards


def routes(cache: Cache, **options: Any) -> list[BaseRoute]:
    """Return the routes of a `LivePage`; options are its."""
    return LivePage(cache, **options).routes()


def static_files() -> dict[str, bytes]:
    """Return the page's files by their path below `static/`."""
    found: dict[str, bytes] = {}
    looked = [("", files("cachebus.monitoring.page") / "static")]
    while looked:
        path, folder = looked.pop()
        for each in folder.iterdir():
            name = f"{path}{each.name}"
            if each.is_dir():
                looked.append((f"{name}/", each))
            elif each.name.rpartition(".")[2] in TYPES:
                found[name] = each.read_bytes()
    return dict(sorted(found.items()))


@lru_cache
def _packed(name: str) -> tuple[bytes, bytes, str]:
    """Return a file as it is, compressed, and its validator: of the content, so that both may bear it."""
    content = static_files()[name]
    return content, gzip.compress(content, 9), f'W/"{hashlib.blake2b(content, digest_size=8).hexdigest()}"'


async def _static(name: str, request: Request) -> Response:
    content, packed, validator = _packed(name)
    headers = {**HEADERS, "Vary": "Accept-Encoding", "ETag": validator}
    if validator in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    if "gzip" in request.headers.get("accept-encoding", ""):
        content, headers["Content-Encoding"] = packed, "gzip"
    return Response(content, media_type=TYPES[name.rpartition(".")[2]], headers=headers)
