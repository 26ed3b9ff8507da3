"""Who may look at the page, and who may act on it.

Looking: an admin's session, or a browser on the machine the page runs on. Acting: an admin's session, always, and from
the page itself: a request that another site made a browser send is refused.
Source: OWASP Cross-Site Request Forgery Prevention Cheat Sheet, "Fetch Metadata" and "Verifying Origin".
"""

from __future__ import annotations

import hashlib
import ipaddress
import secrets
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.requests import Request

from cachebus.errors import SessionsUnavailable
from cachebus.link import Link
from cachebus.sessions import SessionStore

ROLE = "admin"
"""Session data: `{"role": "admin"}` makes a session an admin's."""
COOKIE = "__Host-sid"
"""What `SessionMiddleware` calls its cookie."""
CODE_S = 600
FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via")
"""Headers that say: whoever speaks to us speaks for somebody else."""


class Refused(Exception):
    """The request is not done; the status is HTTP's."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who asks."""

    name: str
    admin: bool


class Access:
    """Decides, request by request."""

    def __init__(self, link: Link, sessions: SessionStore, *, cookie: str = COOKIE) -> None:
        self._link = link
        self._sessions = sessions
        self.cookie = cookie

    async def looking(self, request: Request) -> Visitor:
        """Return who looks. Raises: Refused."""
        here = from_this_machine(request)
        try:
            admin = await self._admin(request)
        except SessionsUnavailable:
            if not here:
                raise Refused(503, "Redis does not answer, so nobody can be let in; the page goes on then") from None
            admin = None
        if admin is not None:
            return admin
        if here:
            return Visitor("this machine", admin=False)
        raise Refused(401, "sign in to see this page: python -m gateway.page prints a link that does it")

    async def acting(self, request: Request) -> Visitor:
        """Return the admin who acts. Raises: Refused, SessionsUnavailable."""
        refuse_other_sites(request)
        admin = await self._admin(request)
        if admin is None:
            raise Refused(403, "only an admin may do this: sign in with a link from python -m gateway.page")
        return admin

    async def enter(self, request: Request, code: str) -> tuple[str, str]:
        """Take a one-use code; return the id of a new admin session, and whose it is. Raises: Refused."""
        refuse_other_sites(request)
        name = await self._link.store.call("GETDEL", _code_name(self._link, code))
        if name is None:
            raise Refused(403, "this code was used already, or is older than ten minutes; make another one")
        ip = request.client.host if request.client is not None else None
        agent = request.headers.get("user-agent")
        return await self._sessions.create(name.decode(), {"role": ROLE}, ip=ip, user_agent=agent), name.decode()

    async def _admin(self, request: Request) -> Visitor | None:
        session = await self._sessions.get(request.cookies.get(self.cookie))
        if session is None or session.data.get("role") != ROLE:
            return None
        return Visitor(str(session.user_id), admin=True)


async def one_use_code(link: Link, name: str = "operator") -> str:
    """Return a code that makes its bearer an admin, once, within ten minutes. Whoever reaches Redis may make one."""
    code = secrets.token_urlsafe(32)
    await link.store.call("SET", _code_name(link, code), name, "EX", CODE_S)
    return code


def from_this_machine(request: Request) -> bool:
    """Whether a browser on this machine asks for this machine: no proxy between, no foreign name that leads here."""
    if request.client is None or any(header in request.headers for header in FORWARDED):
        return False
    host = urlsplit(f"//{request.headers.get('host', '')}").hostname or ""
    return _loopback(request.client.host) and (host == "localhost" or _loopback(host))


def refuse_other_sites(request: Request) -> None:
    """Raise Refused unless the browser says that this page's own origin sent the request."""
    if request.headers.get("sec-fetch-site", "same-origin") != "same-origin":
        raise Refused(403, "this request comes from another site")
    origin = urlsplit(request.headers.get("origin", ""))
    if not origin.netloc or origin.netloc.lower() != request.headers.get("host", "").lower():
        raise Refused(403, "this request does not come from this page (Origin)")
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise Refused(415, "send JSON")


def _code_name(link: Link, code: str) -> str:
    return link.names.bus("page-code", hashlib.sha256(code.encode()).hexdigest())


def _loopback(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback  # a dual-stack socket sees IPv4 mapped
