"""Sessions in an ASGI application: one cookie that scripts cannot read and other hosts cannot set."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from cachebus.durations import Duration
from cachebus.errors import ConfigurationError, SessionsUnavailable
from cachebus.integrations.asgi.address import checked_proxies, client_address
from cachebus.integrations.asgi.refusal import App, Header, Message, Receive, Scope, Send, refuse
from cachebus.sessions.session import Session, UserId
from cachebus.sessions.store import SessionStore

HOST_PREFIX = "__Host-"
"""Browsers take such a cookie only over TLS, for this host and for all its paths: a sibling host cannot plant one."""
CLEARED_AT_LOGOUT = b'"cache", "storage"'
"""Not "cookies": that would take those of every host of the domain."""


class RequestSession:
    """The session of one request, in `scope["session"]` (Starlette: `request.session`). Read when first asked for.

    `session["ip"]` and other fields can be read as of a `Session` once `get()` was awaited in this request.
    """

    def __init__(self, store: SessionStore, session_id: str | None, ip: str, user_agent: str | None) -> None:
        self._store = store
        self._id = session_id
        self._ip = ip
        self._user_agent = user_agent
        self._found: Session | None = None
        self._asked = False
        self._answered = False
        self._new_id: str | None = None
        self._logged_out = False

    async def get(self) -> Session | None:
        """Return the session, None for nobody. One round trip the first time, none for a request without a cookie.

        Raises: SessionsUnavailable, which the middleware answers with 503.
        """
        if not self._asked:
            self._found = await self._store.get(self._id, ip=self._ip, user_agent=self._user_agent)
            self._asked = True
        return self._found

    def __getitem__(self, name: str) -> Any:
        if not self._asked:
            raise RuntimeError(f"session[{name!r}]: the session has not been read; write `await session.get()` before")
        if self._found is None:
            raise KeyError(name)
        return self._found[name]

    async def login(
        self,
        user_id: UserId,
        data: Mapping[str, Any] | None = None,
        *,
        idle: Duration | None = None,
        absolute: Duration | None = None,
    ) -> None:
        """Begin a session for *user_id* under a new id, and end the one the request came with at once.

        Before the response begins. Raises: TooManySessions, SessionsUnavailable.
        """
        self._before_answer()
        new_id = await self._store.create(
            user_id, data, ip=self._ip, user_agent=self._user_agent, idle=idle, absolute=absolute
        )
        await self._store.invalidate(self._id)
        self._become(new_id)

    async def rotate(self) -> None:
        """Give the session a new id; the old one serves requests under way for 10 s. Before the response begins."""
        self._before_answer()
        new_id = await self._store.rotate(self._id)
        if new_id is not None:
            self._become(new_id)

    async def update(
        self, changes: Mapping[str, Any] | None = None, *, remove: str | Iterable[str] = ()
    ) -> Session | None:
        """Change fields of the session and return it; None: there is none, and none is made."""
        self._found = await self._store.update(self._id, changes, remove=remove)
        self._asked = True
        return self._found

    async def logout(self) -> None:
        """End the session and delete the cookie. Before the response begins. Safe to repeat."""
        self._before_answer()
        await self._store.invalidate(self._id)
        self._id, self._new_id, self._found = None, None, None
        self._asked = self._logged_out = True

    async def logout_others(self) -> int:
        """End all other sessions of this user, as after a change of password, and return how many."""
        session = await self.get()
        return 0 if session is None else await self._store.invalidate_user(session.user_id, except_=self._id)

    def _become(self, new_id: str) -> None:
        self._id = self._new_id = new_id
        self._asked = self._logged_out = False

    def _before_answer(self) -> None:
        if self._answered:
            raise RuntimeError("the response has begun: its headers, and with them the cookie, are already sent")

    def _answer(self, headers: list[Header], cookie: str, same_site: str) -> list[Header]:
        """Return the response's headers, with what this session adds to them."""
        self._answered = True
        if not self._asked and self._new_id is None:
            return headers
        headers = _varying_by_cookie(headers)
        if self._new_id is None and not self._logged_out:
            return headers
        value, age = (self._new_id, "") if self._new_id is not None else ("", "; Max-Age=0")
        line = f"{cookie}={value}{age}; Path=/; Secure; HttpOnly; SameSite={same_site}"
        headers = [(name, text) for name, text in headers if name.lower() != b"cache-control"]
        headers += [(b"set-cookie", line.encode()), (b"cache-control", b"no-store")]
        if self._logged_out:
            headers.append((b"clear-site-data", CLEARED_AT_LOGOUT))
        return headers


class SessionMiddleware:
    """Gives each request its session. The id travels in the cookie only, and is in no log line.

    A response that looked at the session says `Vary: Cookie`; one that sets the cookie is `no-store`. A cookie whose
    session is gone is left alone: a request that began before a rotation must not delete the new cookie. An outage
    of the store is answered with 503. *proxies*: how many of yours each request passes.
    Source: OWASP ASVS 5.0, 3.3; OWASP Session Management Cheat Sheet.
    """

    def __init__(
        self,
        app: App,
        *,
        store: SessionStore,
        cookie: str = "__Host-sid",
        same_site: Literal["Lax", "Strict"] = "Lax",
        proxies: int = 0,
    ) -> None:
        if not cookie.startswith(HOST_PREFIX) or not cookie[len(HOST_PREFIX) :].replace("-", "").isalnum():
            raise ConfigurationError(f"cookie: {cookie!r} must be {HOST_PREFIX} and letters, digits or '-'")
        if same_site not in {"Lax", "Strict"}:
            raise ConfigurationError(f"same_site: {same_site!r} is not one of Lax, Strict")
        self._app = app
        self._store = store
        self._cookie = cookie
        self._same_site = same_site
        self._proxies = checked_proxies(proxies)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] not in {"http", "websocket"}:
            return await self._app(scope, receive, send)
        user_agent = next((value for name, value in scope["headers"] if name == b"user-agent"), None)
        session = RequestSession(
            self._store,
            _cookie_value(scope["headers"], self._cookie),
            client_address(scope, self._proxies),
            None if user_agent is None else user_agent.decode("latin-1"),
        )
        begun = False

        async def send_with_cookie(message: Message) -> None:
            nonlocal begun
            if message["type"] in {"http.response.start", "websocket.accept"}:
                begun = True
                message["headers"] = session._answer(  # noqa: SLF001 - one class in two halves
                    list(message.get("headers", ())), self._cookie, self._same_site
                )
            await send(message)

        try:
            await self._app({**scope, "session": session}, receive, send_with_cookie)
        except SessionsUnavailable:
            if begun:
                raise
            problem = {"type": "about:blank", "title": "Sessions are unavailable; nobody is logged out by that"}
            await refuse(scope, send, 503, problem, [(b"retry-after", b"1"), (b"cache-control", b"no-store")])


def _cookie_value(headers: Iterable[Header], cookie: str) -> str | None:
    """Return the cookie's value; None without one, and with two that differ: one of them was planted."""
    pairs = [
        pair.strip().partition("=")
        for name, line in headers
        if name == b"cookie"
        for pair in line.decode("latin-1").split(";")
    ]
    values = {value for name, _, value in pairs if name == cookie}
    return values.pop() if len(values) == 1 else None


def _varying_by_cookie(headers: list[Header]) -> list[Header]:
    varying = [value for name, value in headers if name.lower() == b"vary"]
    words = {word.strip().lower() for value in varying for word in value.split(b",")}
    return headers if words & {b"cookie", b"*"} else [*headers, (b"vary", b"Cookie")]
