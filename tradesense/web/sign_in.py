"""Who is it? Sessions in a cookie, for anyone of the thousand users: they have no passwords.

While Redis is down nobody can sign in or out, and who was seen shortly before goes on: `signed_in` remembers them for
a few minutes. What is given up: a session that another process ended just before the outage is still taken here.
"""

from __future__ import annotations

import hashlib
from time import monotonic
from typing import Annotated

import msgspec
from fastapi import APIRouter, Depends, HTTPException, Request, Response
from pydantic import BaseModel, Field

from cachebus import Limit, RateLimiter, SessionStore
from cachebus.errors import SessionsUnavailable
from cachebus.gateway import Tickets
from cachebus.integrations.asgi import RequestSession, Rule
from cachebus.integrations.fastapi import tickets
from tradesense import queries
from tradesense.views import cache, user_profile

COOKIE = "__Host-sid"
REMEMBERED_S = 300
MOST_REMEMBERED = 10_000
SHOWN = 12
"""People that the list of those who may sign in has."""

sessions = SessionStore(cache)
limiter = RateLimiter(cache)
LOGINS = Rule(Limit(20, "1m", name="login"), path="/api/session", method="POST")

router = APIRouter()
router.include_router(tickets(Tickets(cache), path="/api/ticket"))

_remembered: dict[str, tuple[int, float]] = {}
"""Who was signed in, by digest of the session's id, and until when that is believed without asking."""


class Login(BaseModel):
    """Who wants to sign in."""

    user_id: int = Field(gt=0, le=queries.LARGEST_ID)


async def signed_in(request: Request) -> int:
    """Return the id of the user who asks. Raises: HTTPException 401; SessionsUnavailable, answered with 503."""
    session: RequestSession = request.scope["session"]
    digest = _digest(request)
    try:
        found = await session.get()
    except SessionsUnavailable:
        user_id, until = _remembered.get(digest, (0, 0.0))
        if monotonic() > until:
            raise
        return user_id
    if found is None:
        _remembered.pop(digest, None)
        raise HTTPException(401, "not signed in")
    while len(_remembered) >= MOST_REMEMBERED:
        _remembered.pop(next(iter(_remembered)))
    _remembered[digest] = int(found.user_id), monotonic() + REMEMBERED_S
    return int(found.user_id)


SignedIn = Annotated[int, Depends(signed_in)]


@router.get("/api/people")
async def people(named: str = "") -> Response:
    """Return whose name or number it may be; the first dozen of all where nothing is said."""
    found = await queries.people(named.strip()[:80], SHOWN)
    return Response(msgspec.json.encode(found), media_type="application/json", headers={"Cache-Control": "no-store"})


@router.post("/api/session", status_code=204)
async def log_in(request: Request, who: Login) -> None:
    """Sign in; at most twenty times a minute from one address (`LOGINS`)."""
    await user_profile(who.user_id)  # NotFound is answered with 404
    _remembered.pop(_digest(request), None)
    session: RequestSession = request.scope["session"]
    await session.login(who.user_id)


@router.delete("/api/session", status_code=204)
async def log_out(request: Request) -> None:
    """Sign out, here and at once."""
    _remembered.pop(_digest(request), None)
    session: RequestSession = request.scope["session"]
    await session.logout()


def _digest(request: Request) -> str:
    return hashlib.sha256(request.cookies.get(COOKIE, "").encode()).hexdigest()
