"""The server of `cachebus gateway`: uvicorn, with patience that ends and a drain before it closes.

What uvicorn does not do by itself: give up on a peer that stopped reading, count the pings, and send WebSocket clients
elsewhere one after the other instead of all at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from typing import Any

import uvicorn
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from cachebus.gateway.delivery.hub import Close
from cachebus.gateway.gateway import Gateway
from cachebus.gateway.protocol import FRAMES_S, LARGEST_FRAME_BYTES, MOST_FRAMES
from cachebus.process.patient_http import PatientHttp

PING_S = 25.0
PONG_S = 8.0
GRACE_S = 3
"""For what is still open after the drain."""


class PatientSocket(WebSocketsSansIOProtocol):
    """A WebSocket whose close frame does not wait for a client that reads nothing, and whose frames all count.

    Pings and frames that are not text never reach the application, so they are counted and refused here.
    """

    _pings = 0
    _pings_since = 0.0

    async def send(self, message: Any) -> None:
        """Send; a close goes out, or into the buffer, at once."""
        if message["type"] == "websocket.close":
            self.writable.set()
        await super().send(message)
        if message["type"] == "websocket.http.response.body" and not message.get("more_body"):
            self.handshake_complete = True  # by an answer of ours; else it is an error in the log, which strangers fill

    def handle_ping(self) -> None:
        """Answer a ping; too many in a minute end the connection, as too many frames of another kind do."""
        now = self.loop.time()
        if now - self._pings_since > FRAMES_S:
            self._pings_since, self._pings = now, 0
        self._pings += 1
        if self._pings > MOST_FRAMES:
            self._end(Close.FLOOD.code, Close.FLOOD.reason)
        else:
            super().handle_ping()

    def send_receive_event_to_app(self) -> None:
        """Pass a frame on; text that is not UTF-8 ends the connection, without a traceback. Source: RFC 6455, 8.1."""
        if self.curr_msg_data_type == "text":
            try:
                b"".join(self.frames).decode()
            except UnicodeDecodeError:
                self.frames = []
                self._end(1007, "text must be UTF-8")
                return
        super().send_receive_event_to_app()

    def _end(self, code: int, reason: str) -> None:
        if not self.close_sent:
            self.conn.send_close(code, reason)
            self.handle_parser_exception()


class GatewayServer(uvicorn.Server):
    """Drains the gateway before uvicorn closes what is left."""

    def __init__(self, config: uvicorn.Config, gateway: Gateway, drain_s: float) -> None:
        super().__init__(config)
        self._gateway = gateway
        self._drain_s = drain_s
        gateway.heeds_signals = False  # `shutdown` drains it

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none: `Stop` has them."""
        yield

    async def serve_until(self, stopped: asyncio.Event, opened: socket.socket) -> None:
        """Serve until *stopped*, then drain."""
        waiting = asyncio.ensure_future(stopped.wait())
        waiting.add_done_callback(lambda _: setattr(self, "should_exit", True))
        try:
            await self.serve([opened])
        finally:
            waiting.cancel()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop listening, send everyone away over some seconds, then close."""
        for server in self.servers:
            server.close()
        await self._gateway.drain(self._drain_s)
        await super().shutdown(sockets)


def serve(application: Any, gateway: Gateway, *, drain_s: float) -> GatewayServer:
    """Return a server for *application*, in which *gateway* is mounted; `await .serve_until(event, socket)` runs it."""
    config = uvicorn.Config(
        application,
        log_config=None,  # lines as all others are
        http=PatientHttp,
        ws=PatientSocket,
        ws_max_size=LARGEST_FRAME_BYTES,
        ws_ping_interval=PING_S,
        ws_ping_timeout=PONG_S,
        ws_per_message_deflate=False,  # messages are small, and each client would have them compressed anew
        access_log=False,  # a line a request, with tickets in it
        log_level="warning",
        timeout_graceful_shutdown=GRACE_S,
        server_header=False,
    )
    return GatewayServer(config, gateway, drain_s)
