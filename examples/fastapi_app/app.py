"""Cached views over HTTP, and a page that reads them again when the gateway says that something changed.

`uvicorn examples.fastapi_app.app:app`, beside a worker and a gateway. Settings: `REDIS_URL` as everywhere, and
`GATEWAY_URL`, where browsers find the gateway.

A request may say `Fresh-After: <clock>`: the answer is not older than the change with that clock. Browsers get clocks
from the gateway, other callers from `publish` and `invalidate`.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import AsyncIterator
from importlib.resources import files
from typing import Annotated, Any

import msgspec
from fastapi import Depends, FastAPI, Header, HTTPException, Request
from fastapi.responses import HTMLResponse, Response

from cachebus.bus import Bus
from cachebus.sessions import SessionStore
from gateway import Tickets
from tradesense import recording
from tradesense.events import TradeEvent
from tradesense.views import cache, portfolio

COOKIE = "sid"
"""A name without `__Host-`: this example speaks HTTP, on more than the name localhost."""
GATEWAY_URL = "http://localhost:8080/"


@contextlib.asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Connect, and close."""
    async with cache:
        app.state.sessions = SessionStore(cache.link)
        app.state.tickets = Tickets(cache.link)
        app.state.bus = Bus(cache.link)
        yield
        await app.state.bus.close()


app = FastAPI(title="Portfolios", lifespan=lifespan)


def fresh_after(header: Annotated[str | None, Header(alias="Fresh-After")] = None) -> int:
    """Return the clock that an answer must not be older than; 0: any answer will do."""
    if header is not None and (not header.isascii() or not header.isdigit() or len(header) > 18):
        raise HTTPException(400, "Fresh-After: a clock is a whole number of microseconds")
    return int(header or 0)


async def user_of(request: Request) -> int:
    """Return who is signed in."""
    session = await request.app.state.sessions.get(request.cookies.get(COOKIE))
    if session is None:
        raise HTTPException(401, "not signed in")
    return int(session.user_id)


Clock = Annotated[int, Depends(fresh_after)]
User = Annotated[int, Depends(user_of)]


@app.get("/", response_class=HTMLResponse)
async def page(request: Request, user: int = 7) -> Response:
    """Show a user's portfolio. The example has no passwords: who asks for a user, is signed in as that user."""
    sessions: SessionStore = request.app.state.sessions
    session = await sessions.get(request.cookies.get(COOKIE))
    gateway = json.dumps(os.environ.get("GATEWAY_URL", GATEWAY_URL)).replace("<", "\\u003c")
    html = (files("examples.fastapi_app") / "page.html").read_text()
    response = HTMLResponse(html.replace("GATEWAY", gateway).replace("USER", str(user)))
    if session is None or session.user_id != user:
        response.set_cookie(COOKIE, await sessions.create(user), httponly=True, samesite="lax")
    return response


@app.get("/portfolio")
async def show(user: User, clock: Clock) -> Response:
    """Return what the signed-in user holds."""
    with cache.reading(fresh_after=clock):
        summary = await portfolio(user)
    return Response(msgspec.json.encode(summary), media_type="application/json")


@app.post("/trades", status_code=201)
async def trade(user: User, request: Request, symbol: str, quantity: int = 10) -> dict[str, Any]:
    """Buy; every page of this user changes."""
    try:
        trade_id = await recording.record_trade(user, symbol, "buy", quantity, "100.00")
    except ValueError as problem:
        raise HTTPException(422, str(problem)) from None
    bus: Bus = request.app.state.bus
    await bus.publish("trade:updates", TradeEvent(user, "new_trade", trade_id, symbol), key=f"user:{user}")
    return {"trade_id": trade_id}


@app.post("/ticket")
async def ticket(request: Request) -> dict[str, str]:
    """Return a ticket for the gateway: the cookie of this application does not go to another site."""
    session = await request.app.state.sessions.get(request.cookies.get(COOKIE))
    if session is None:
        raise HTTPException(401, "not signed in")
    return {"ticket": await request.app.state.tickets.issue(session)}
