"""The gateway's addresses: `/ws`, `/events`, `/ticket`, `/client.js`.

gateway = Gateway(cache, public_topics=["news:*"])
app.mount("/live", live_app(gateway))
"""

from __future__ import annotations

from functools import partial
from importlib.resources import files

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket

from cachebus.errors import ServerError, SessionsUnavailable
from cachebus.gateway.gateway import Gateway
from cachebus.gateway.transports.sse import events
from cachebus.gateway.transports.websocket import Socket
from cachebus.integrations.asgi.headers import SafeHeaders

SAFE = [Middleware(SafeHeaders)]


def live_app(gateway: Gateway, *more: BaseRoute) -> Starlette:
    """Return the gateway's addresses, and *more*, as an application: to be mounted, or served by itself.

    Its owner enters the gateway: a mounted application has no lifespan of its own.
    """
    app = Starlette(routes=[*live_routes(gateway), *more], middleware=SAFE)
    app.router.redirect_slashes = False  # the redirect would lead to whatever host the request names
    return app


def live_routes(gateway: Gateway) -> list[BaseRoute]:
    """Return `/ws`, `/events`, `/ticket` and `/client.js`, to be mounted under any prefix."""

    async def socket(websocket: WebSocket) -> None:
        await Socket(gateway, websocket).run()

    return [
        WebSocketRoute("/ws", socket, middleware=SAFE),
        Route("/events", partial(events, gateway), methods=["GET"], middleware=SAFE),
        Route("/ticket", partial(_ticket, gateway), methods=["POST"], middleware=SAFE),
        Route("/client.js", _client, methods=["GET"], middleware=SAFE),
    ]


async def _ticket(gateway: Gateway, request: Request) -> Response:
    if not gateway.origins.allow(request):
        return PlainTextResponse("this origin may not connect", 403)
    headers = gateway.origins.answer(request)
    try:
        session = await gateway.admission.session(request)
        if session is None:
            return PlainTextResponse("no session, or it has ended", 401, headers)
        ticket = await gateway.admission.tickets.issue(session)
    except (ServerError, SessionsUnavailable):
        return PlainTextResponse("sessions cannot be looked up now", 503, headers)
    return JSONResponse({"ticket": ticket}, headers=headers)


async def _client(_request: Request) -> Response:
    script = (files("cachebus.gateway") / "static" / "client.js").read_bytes()
    # Modules of another origin are fetched with CORS; the script is public.
    return Response(
        script, media_type="text/javascript", headers={"Cache-Control": "no-cache", "Access-Control-Allow-Origin": "*"}
    )
