"""From the feed to browsers: WebSocket, server-sent events, the live page."""

from gateway.live import Gateway
from gateway.tickets import Tickets

__all__ = ["Gateway", "Tickets"]
