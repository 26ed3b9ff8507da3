"""Who may connect: origin first, then the session or the ticket, and now and then the session again.

A browser sends its cookies to a WebSocket whatever page opened it, so the page's origin is looked at before anything
else; a request without one does not come from a browser's page.
Source: RFC 6455, section 10.2; OWASP WebSocket Security Cheat Sheet.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection

from cachebus.errors import ConfigurationError
from cachebus.freshness.scopes import names
from cachebus.gateway.tickets import Tickets, Visitor
from cachebus.redis.client import Connector
from cachebus.sessions.session import Session
from cachebus.sessions.store import SessionStore


class Origins:
    """The origins whose pages may connect: those named, and the one the request itself was sent to."""

    def __init__(self, allowed: str | Sequence[str] = ()) -> None:
        allowed = names(allowed)
        for origin in allowed:
            parts = urlsplit(origin)
            if parts.scheme not in {"http", "https"} or not parts.netloc or parts.path or parts.query:
                raise ConfigurationError(f"origins: {origin!r} is not an origin such as https://app.example.com")
        self._allowed = frozenset(origin.lower() for origin in allowed)

    def allow(self, request: HTTPConnection) -> bool:
        """Whether the page that sends this may."""
        origin = request.headers.get("origin")
        if origin is None:
            return request.headers.get("sec-fetch-site", "none") in {"none", "same-origin", "same-site"}
        return origin.lower() in self._allowed or self._own(origin, request)

    def answer(self, request: HTTPConnection) -> dict[str, str]:
        """Return the headers that let a page of another, allowed origin read the answer."""
        origin = request.headers.get("origin")
        if origin is None or origin.lower() not in self._allowed:
            return {}
        return {"Access-Control-Allow-Origin": origin, "Access-Control-Allow-Credentials": "true", "Vary": "Origin"}

    def _own(self, origin: str, request: HTTPConnection) -> bool:
        own = urlsplit(origin.lower())
        return own.scheme in {"http", "https"} and own.netloc == request.headers.get("host", "").lower()


class Admission:
    """Looks sessions and tickets up. Raises ServerError or SessionsUnavailable when nobody can be asked."""

    def __init__(self, connector: Connector, sessions: SessionStore, *, cookie: str) -> None:
        self.tickets = Tickets(connector)
        self._sessions = sessions
        self._cookie = cookie

    async def session(self, request: HTTPConnection) -> Session | None:
        """Return the session that the request's cookie names."""
        return await self._sessions.get(request.cookies.get(self._cookie))

    async def admit(self, request: HTTPConnection, ticket: str | None) -> Visitor | None:
        """Return who connects: by the ticket where there is one, else by the cookie. None: nobody we know."""
        if ticket is not None:
            visitor = await self.tickets.take(ticket)
            # A ticket outlives no session: who logged out meanwhile stays out.
            return visitor if visitor is not None and await self.stands([visitor]) == {visitor} else None
        session = await self.session(request)
        return None if session is None else Visitor(session.user_id, session.ref)

    async def stands(self, visitors: Sequence[Visitor]) -> set[Visitor]:
        """Return those of one user whose session still lives. One round trip; an open page is no activity."""
        if not visitors:
            return set()
        live = {session.ref for session in await self._sessions.list_user(visitors[0].user_id)}
        return {visitor for visitor in visitors if visitor.ref in live}
