"""Who may look at the page, and who may act on it.

Both need an admin's session: the application's own, or one of the page's, which a one-use link begins. Behind a proxy
every request comes from this machine, so where it comes from says nothing. `LIVE_PAGE_OPEN` lets everybody look. Acting
must also come from the page itself: a request that another site made a browser send is refused.
Source: OWASP Cross-Site Request Forgery Prevention Cheat Sheet, "Fetch Metadata" and "Verifying Origin".
"""

from __future__ import annotations

import hashlib
import ipaddress
from dataclasses import dataclass
from time import monotonic
from urllib.parse import urlsplit

from starlette.requests import Request

from cachebus.errors import SessionsUnavailable
from cachebus.monitoring.sign_in import take_code
from cachebus.redis.client import Client
from cachebus.sessions.store import SessionStore

ROLE = "admin"
"""Session data: `{"role": "admin"}` makes a session an admin's."""
COOKIE = "__Host-sid"
"""What `SessionMiddleware` calls its cookie."""
SEEN_S = 900.0
MOST_SEEN = 1000
PAGE_COOKIE = "cachebus-page"
"""Holds the session that a one-use link begins. Apart from the application's, which may be signed in as a user."""


class RequestRefused(Exception):
    """The request is not done; the status is HTTP's."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


@dataclass(frozen=True, slots=True)
class Viewer:
    """Who asks."""

    name: str
    admin: bool


class Access:
    """Decides, request by request."""

    def __init__(
        self, client: Client, sessions: SessionStore, *, cookie: str = COOKIE, open_to_all: bool = False
    ) -> None:
        self._client = client
        self._sessions = sessions
        self._cookie = cookie
        self._open_to_all = open_to_all
        self._seen: dict[str, tuple[Viewer, float]] = {}
        """Admins by the digest of their cookie, and when each was last looked up."""

    async def looking(self, request: Request) -> Viewer:
        """Return who looks. Raises: RequestRefused.

        While Redis is unavailable, whoever was an admin in the last quarter of an hour may go on looking: that is when
        the page is needed most.
        """
        try:
            admin = await self._admin(request)
        except SessionsUnavailable:
            admin = self._seen_lately(request)
            if admin is None and not self._open_to_all:
                raise RequestRefused(503, "Redis is unavailable: nobody can sign in now") from None
        if admin is not None:
            return admin
        if self._open_to_all:
            return Viewer("anybody", admin=False)
        raise RequestRefused(401, "sign in to see this page: cachebus page-link prints a link that does it")

    async def acting(self, request: Request) -> Viewer:
        """Return the admin who acts. Raises: RequestRefused, SessionsUnavailable."""
        refuse_other_sites(request)
        admin = await self._admin(request)
        if admin is None:
            raise RequestRefused(403, "only an admin may do this: sign in with a link from cachebus page-link")
        return admin

    async def enter(self, request: Request, code: str) -> tuple[str, str]:
        """Take a one-use code; return the id of a new admin session, and whose it is. Raises: RequestRefused."""
        refuse_other_sites(request)
        name = await take_code(self._client, code)
        if not name:
            raise RequestRefused(403, "this code was used already, or is older than ten minutes; make another one")
        ip = request.client.host if request.client is not None else None
        agent = request.headers.get("user-agent")
        return await self._sessions.create(name, {"role": ROLE}, ip=ip, user_agent=agent), name

    async def _admin(self, request: Request) -> Viewer | None:
        for session_id in self._session_ids(request):
            session = await self._sessions.get(session_id)
            if session is not None and session.data.get("role") == ROLE:
                viewer = Viewer(str(session.user_id), admin=True)
                self._remember(session_id, viewer)
                return viewer
            self._seen.pop(_digest(session_id), None)
        return None

    def _session_ids(self, request: Request) -> list[str]:
        """Return what the request may be signed in by: the page's own session first, then the application's."""
        ids = [request.cookies.get(name) for name in (page_cookie(request), self._cookie)]
        return [session_id for session_id in ids if session_id]

    def _remember(self, session_id: str, viewer: Viewer) -> None:
        while len(self._seen) >= MOST_SEEN:
            del self._seen[next(iter(self._seen))]
        self._seen[_digest(session_id)] = (viewer, monotonic())

    def _seen_lately(self, request: Request) -> Viewer | None:
        for session_id in self._session_ids(request):
            viewer, at = self._seen.get(_digest(session_id), (None, 0.0))
            if viewer is not None and monotonic() - at < SEEN_S:
                return viewer
        return None


def page_cookie(request: Request) -> str:
    """Return the name of the page's own cookie: with the prefix that keeps other sites of the domain from setting it.

    A browser on this machine speaks plain HTTP, where not every browser takes a cookie that asks for TLS.
    """
    return PAGE_COOKIE if names_this_machine(request) else f"__Host-{PAGE_COOKIE}"


def names_this_machine(request: Request) -> bool:
    """Whether the browser knows the page under a name of its own machine."""
    host = urlsplit(f"//{request.headers.get('host', '')}").hostname or ""
    return host == "localhost" or _loopback(host)


def refuse_other_sites(request: Request) -> None:
    """Raise RequestRefused unless the browser says that this page's own origin sent the request."""
    if request.headers.get("sec-fetch-site", "same-origin") != "same-origin":
        raise RequestRefused(403, "this request comes from another site")
    origin = urlsplit(request.headers.get("origin", ""))
    if not origin.netloc or origin.netloc.lower() != request.headers.get("host", "").lower():
        raise RequestRefused(403, "this request does not come from this page (Origin)")
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise RequestRefused(415, "send JSON")


def _digest(session_id: str) -> str:
    return hashlib.sha256(session_id.encode()).hexdigest()


def _loopback(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback  # a dual-stack socket sees IPv4 mapped
