"""From the feed to browsers: WebSocket, server-sent events, the live page."""

from cachebus.gateway.gateway import Gateway
from cachebus.gateway.routes import live_app, live_routes
from cachebus.gateway.seats import ConnectionLimits
from cachebus.gateway.tickets import Tickets

__all__ = ["ConnectionLimits", "Gateway", "Tickets", "live_app", "live_routes"]
