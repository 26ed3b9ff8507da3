"""`/metrics` of a gateway, for whoever is inside: the same port is open to browsers."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from cachebus.cache.cache import Cache
from cachebus.gateway.gateway import Gateway
from cachebus.integrations.readings import Reading

PASSED_ON = ("x-forwarded-for", "forwarded", "x-real-ip")
"""Headers by which a proxy says that a request comes from outside."""
_COUNTS = {
    "gateway_messages": "messages",
    "gateway_sent": "sent",
    "gateway_left_out": "left_out",
    "gateway_resumed": "resumed",
    "gateway_resets": "reset",
    "gateway_slow": "slow",
}


def metrics_routes(cache: Cache, gateway: Gateway) -> list[Route]:
    """Return `/metrics`; nothing where prometheus-client is not installed."""
    try:
        from cachebus.integrations.prometheus import CONTENT_TYPE, MetricsPage  # noqa: PLC0415 - optional
    except ImportError:
        return []

    def readings() -> Iterator[Reading]:
        yield Reading("gateway_connections", gateway.connected)
        yield Reading("gateway_away", float(gateway.hub.away))
        yield Reading("gateway_draining", float(gateway.draining))
        for name, count in _COUNTS.items():
            yield Reading(name, gateway.hub.counts[count])

    page = MetricsPage(cache, readings)

    async def metrics(request: Request) -> Response:
        if _from_outside(request):
            return PlainTextResponse("metrics are for scrapers of the same network, without a proxy in between", 403)
        return Response(page.text(), media_type=CONTENT_TYPE)

    return [Route("/metrics", metrics)]


def _from_outside(request: Request) -> bool:
    if any(name in request.headers for name in PASSED_ON):
        return True
    host = request.client.host if request.client is not None else ""
    try:
        return ipaddress.ip_address(host).is_global
    except ValueError:  # a socket of this machine has no address
        return False
