"""What the page reads. Each answer says what gave it (`Cache-Status`) and how old it is (`Age`).

A view without a user in it is a route by itself: `cached_response`. Where settings shape a figure, they are looked up
first, cached too, and `respond` answers from the view for them.
"""

from __future__ import annotations

import os
from typing import Any

import msgspec
from fastapi import APIRouter, Depends, Request, Response

from cachebus.integrations.fastapi import cached_response, fresh_after, respond
from tradesense import queries
from tradesense.views import (
    cache,
    portfolio_summary,
    price_history,
    reference_data,
    risk,
    trade_analytics,
    user_profile,
    user_settings,
)
from tradesense.web.measured import WithoutCache
from tradesense.web.sign_in import SignedIn

GATEWAY_URL = "http://localhost:8080/"
"""Where browsers find the gateway, unless the environment says otherwise."""

router = APIRouter(prefix="/api", dependencies=[Depends(fresh_after), WithoutCache])


@router.get("/me")
async def me(request: Request, user_id: SignedIn) -> Response:
    """Return who is signed in."""
    return await respond(request, user_profile, user_id)


@router.get("/settings")
async def settings(request: Request, user_id: SignedIn) -> Response:
    """Return how the user wants figures computed and grouped."""
    return await respond(request, user_settings, user_id)


@router.get("/portfolio")
async def portfolio(request: Request, user_id: SignedIn) -> Response:
    """Return what the user holds, at the last closes."""
    wanted = await user_settings(user_id)
    return await respond(request, portfolio_summary, user_id, wanted.cost_basis)


@router.get("/analytics")
async def analytics(request: Request, user_id: SignedIn) -> Response:
    """Return how the user's closed trades went."""
    wanted = await user_settings(user_id)
    return await respond(request, trade_analytics, user_id, wanted.cost_basis, wanted.time_zone, wanted.grouping)


@router.get("/risk")
async def risk_figures(request: Request, user_id: SignedIn) -> Response:
    """Return the equity curve and what it says about risk."""
    wanted = await user_settings(user_id)
    return await respond(request, risk, user_id, wanted.risk_free_rate)


router.get("/market/{symbol}")(cached_response()(price_history))
router.get("/instruments")(cached_response()(reference_data))


@router.get("/trades")
async def trades(user_id: SignedIn) -> Response:
    """Return the user's newest trades, from the database: executions are never cached."""
    found = await queries.newest_trades(user_id)
    return Response(msgspec.json.encode(found), media_type="application/json", headers={"Cache-Control": "no-store"})


@router.get("/status")
async def status() -> dict[str, Any]:
    """Return whether Redis answers this process, and where the gateway is."""
    return {"redis": cache.stats().up, "gateway": gateway_url()}


def gateway_url() -> str:
    """Return where browsers find the gateway."""
    return os.environ.get("GATEWAY_URL", GATEWAY_URL)
