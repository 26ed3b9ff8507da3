"""The page's addresses: the page itself, what it shows as JSON, the live tail, and what an admin may do."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from importlib.resources import files
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from cachebus import Cache, ConfigurationError, Link, ServerError
from cachebus.audit import Audit
from cachebus.deadletters import DeadLetters, Letter
from cachebus.errors import SessionsUnavailable
from cachebus.inspection import Copy, copies, reached
from cachebus.scheduler import Scheduler
from cachebus.sessions import SessionStore
from gateway.page.access import COOKIE, Access, Refused, Visitor
from gateway.page.actions import Actions, Purge
from gateway.page.snapshot import WINDOWS, Snapshots
from gateway.page.watching import SocketsOf, Watching

Endpoint = Callable[[Request], Awaitable[Response]]

LETTERS = 50
LONGEST_VALUE = 20_000
STATIC = {
    "": ("page.html", "text/html; charset=utf-8"),
    "page/style.css": ("style.css", "text/css; charset=utf-8"),
    "page/charts.js": ("charts.js", "text/javascript; charset=utf-8"),
    "page/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "page/icon.svg": ("icon.svg", "image/svg+xml"),
}
HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Page:
    """The live page of one deployment. Connects, and costs anything, when somebody first looks.

    *sessions*: where admins' sessions are looked up (data `{"role": "admin"}`, cookie *cookie*). *scheduler*: shows
    jobs, and runs them in this process when asked to. *sockets_of*: how many sockets follow a topic here.
    """

    def __init__(
        self,
        cache: Cache,
        *,
        sessions: SessionStore | None = None,
        scheduler: Scheduler | None = None,
        sockets_of: SocketsOf | None = None,
        shards: int = 1,
        cookie: str = COOKIE,
    ) -> None:
        self._cache = cache
        self._sessions = sessions
        self._scheduler = scheduler
        self._sockets_of = sockets_of
        self._shards = shards
        self._cookie = cookie
        self._desk: tuple[Link, Desk] | None = None

    def routes(self) -> list[BaseRoute]:
        """Return everything to mount: `/`, and the rest below `/page/`. Links are relative, any prefix will do."""
        fixed = [Route(f"/{path}", partial(_static, *what)) for path, what in STATIC.items()]
        shown = Route("/page/api/{name}", self._answered(Desk.look), methods=["GET"])
        done = Route("/page/api/{name:path}", self._answered(Desk.act), methods=["POST"])
        return [*fixed, shown, done]

    def _answered(self, answer: Callable[[Desk, Request], Awaitable[Response]]) -> Endpoint:
        """Turn what goes wrong into an answer that the page can show."""

        async def answered(request: Request) -> Response:
            try:
                return await answer(await self._connected(), request)
            except Refused as refused:
                return _json({"error": str(refused)}, refused.status)
            except (ConfigurationError, msgspec.DecodeError) as bad:
                return _json({"error": str(bad)}, 400)
            except (ServerError, SessionsUnavailable):
                return _json({"error": "Redis does not answer"}, 503)

        return answered

    async def _connected(self) -> Desk:
        await self._cache.connected()
        link = self._cache.link
        if self._desk is None or self._desk[0] is not link:  # the first time, or in another loop than before
            sessions = self._sessions or SessionStore(link)
            access = Access(link, sessions, cookie=self._cookie)
            actions = Actions(self._cache, DeadLetters(link, shards=self._shards), sessions, self._scheduler)
            snapshots = Snapshots(self._cache, shards=self._shards, scheduler=self._scheduler)
            watching = Watching(link, shards=self._shards, sockets_of=self._sockets_of)
            self._desk = link, Desk(self._cache, access, actions, snapshots, watching)
        return self._desk[1]


class Desk:
    """Answers the page's questions over one connection."""

    def __init__(
        self, cache: Cache, access: Access, actions: Actions, snapshots: Snapshots, watching: Watching
    ) -> None:
        self._cache = cache
        self._access = access
        self._actions = actions
        self._snapshots = snapshots
        self._watching = watching
        self._audit = Audit(cache.link)
        self._looks: dict[str, Callable[[Request, Visitor], Awaitable[Response]]] = {
            "now": self._now,
            "letters": self._list_letters,
            "tail": self._tail,
            "inspect": self._inspect,
            "reach": self._reach,
            "audit": self._list_audit,
            "sessions": self._list_sessions,
        }

    async def look(self, request: Request) -> Response:
        """Show one thing to whoever may look. Raises: Refused."""
        visitor = await self._access.looking(request)
        name = request.path_params["name"]
        if name not in self._looks:
            raise Refused(404, f"there is no {name}")
        return await self._looks[name](request, visitor)

    async def act(self, request: Request) -> Response:
        """Do one thing for an admin: checked, then written down, then done. Raises: Refused."""
        verb = request.path_params["name"]
        if verb == "enter":
            return await self._enter(request)
        visitor = await self._access.acting(request)
        if verb not in self._actions.verbs:
            raise Refused(404, f"{verb} cannot be done from here")
        action = self._actions.verbs[verb]
        asked = msgspec.json.decode(await _body(request), type=action.asks)
        await self._audit.note(visitor.name, verb, msgspec.json.encode(asked).decode())
        return _json(await action.do(asked))

    # -- looking ----------------------------------------------------------------------------------------------------

    async def _now(self, request: Request, visitor: Visitor) -> Response:
        window = request.query_params.get("window", "1h")
        if window not in WINDOWS:
            raise Refused(400, f"window: choose {', '.join(WINDOWS)}")
        now = await self._snapshots.now(window)
        return _json(
            {"me": {"name": visitor.name, "admin": visitor.admin}, "can": sorted(self._actions.verbs), "now": now}
        )

    async def _list_letters(self, _request: Request, _visitor: Visitor) -> Response:
        return _json([_letter(letter) for letter in await self._actions.letters.newest(LETTERS)])

    async def _tail(self, _request: Request, _visitor: Visitor) -> Response:
        headers = {**HEADERS, "Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(self._watching.stream(), media_type="text/event-stream", headers=headers)

    async def _inspect(self, request: Request, _visitor: Visitor) -> Response:
        key = request.query_params.get("key", "")
        now_us = self._cache.link.now_us()
        return _json([_copy(copy, now_us) for copy in await copies(self._cache, key)] if key else [])

    async def _reach(self, request: Request, _visitor: Visitor) -> Response:
        names = Purge.of(request.query_params).names(self._cache)
        found = await reached(self._cache, keys=names.keys, tags=names.tags, prefixes=names.prefixes)
        return _json(found)

    async def _list_audit(self, _request: Request, _visitor: Visitor) -> Response:
        return _json(await self._audit.newest())

    async def _list_sessions(self, request: Request, _visitor: Visitor) -> Response:
        return _json(await self._actions.sessions_of(request.query_params.get("user", "")))

    # -- acting -----------------------------------------------------------------------------------------------------

    async def _enter(self, request: Request) -> Response:
        asked = msgspec.json.decode(await _body(request), type=dict[str, str])
        session_id, name = await self._access.enter(request, asked.get("code", ""))
        await self._audit.note(name, "enter", request.client.host if request.client is not None else "")
        response = _json({"done": "signed in"})
        response.set_cookie(
            self._access.cookie, session_id, secure=_secure(self._access.cookie), httponly=True, samesite="strict"
        )
        return response


def routes(cache: Cache, **options: Any) -> list[BaseRoute]:
    """Return the routes of a `Page`; options are its."""
    return Page(cache, **options).routes()


def _secure(cookie: str) -> bool:
    return cookie.startswith(("__Host-", "__Secure-"))


async def _static(name: str, media_type: str, _request: Request) -> Response:
    content = (files("gateway.page") / "static" / name).read_bytes()
    return Response(content, media_type=media_type, headers=HEADERS)


async def _body(request: Request) -> bytes:
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > 65_536:
            raise Refused(413, "more than 64 KiB")
    return body


def _json(content: Any, status: int = 200) -> Response:
    headers = {**HEADERS, "Cache-Control": "no-store"}
    return Response(msgspec.json.encode(content), status, headers, media_type="application/json")


def _letter(letter: Letter) -> dict[str, Any]:
    plain = letter._asdict()
    plain["payload"] = letter.payload.decode(errors="backslashreplace")
    return {**plain, "at_ms": int(letter.letter_id.partition("-")[0]), "replayable": letter.replayable}


def _copy(copy: Copy, now_us: int) -> dict[str, Any]:
    header = copy.entry.header
    value = msgspec.json.format(msgspec.json.encode(copy.value), indent=2).decode()
    return {
        "views": copy.views,
        "valid": not copy.invalidated_by,
        "invalidated_by": {scope: (now_us - clock) / 1000 for scope, clock in copy.invalidated_by.items()},
        "age_ms": (now_us - copy.entry.born) / 1000,
        "fresh_ms": copy.left_ms - header.grace_ms,
        "left_ms": copy.left_ms,
        "tags": list(header.tags),
        "load_ms": header.load_ms,
        "stored_bytes": copy.stored_bytes,
        "raw_bytes": len(copy.entry.payload),
        "value": value[:LONGEST_VALUE],
        "cut": len(value) > LONGEST_VALUE,
    }
