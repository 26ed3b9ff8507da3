"""The gateway's addresses."""

from __future__ import annotations

from functools import partial
from importlib.resources import files
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket

from cachebus.errors import ServerError, SessionsUnavailable
from gateway.events import events
from gateway.websocket import Socket

if TYPE_CHECKING:
    from gateway.live import Gateway


def routes(gateway: Gateway) -> list[BaseRoute]:
    """Return what a browser needs; any prefix will do."""

    async def socket(websocket: WebSocket) -> None:
        await Socket(gateway, websocket).run()

    return [
        WebSocketRoute("/ws", socket),
        Route("/events", partial(events, gateway), methods=["GET"]),
        Route("/ticket", partial(_ticket, gateway), methods=["POST"]),
        Route("/client.js", _client, methods=["GET"]),
    ]


async def _ticket(gateway: Gateway, request: Request) -> Response:
    if not gateway.origins.allow(request):
        return PlainTextResponse("this origin may not connect", 403)
    headers = {"Cache-Control": "no-store", **gateway.origins.answer(request)}
    try:
        session = await gateway.admission.session(request)
        if session is None:
            return PlainTextResponse("no session, or it has ended", 401, headers)
        ticket = await gateway.admission.tickets.issue(session)
    except (ServerError, SessionsUnavailable):
        return PlainTextResponse("sessions cannot be looked up now", 503, headers)
    return JSONResponse({"ticket": ticket}, headers=headers)


async def _client(_request: Request) -> Response:
    script = (files("gateway") / "static" / "client.js").read_bytes()
    # Modules of another origin are fetched with CORS; the script is public.
    return Response(
        script, media_type="text/javascript", headers={"Cache-Control": "no-cache", "Access-Control-Allow-Origin": "*"}
    )
