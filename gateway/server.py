"""The server of `python -m gateway`: uvicorn, with patience that ends and a drain before it closes.

What uvicorn does not do by itself: give up on a request whose headers never end, on a peer that stopped reading, and
send WebSocket clients away one after the other instead of all at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Iterator
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from gateway.live import Gateway
from gateway.message import LARGEST_FRAME_BYTES

HEADERS_S = 10.0
"""A request has to be complete after this time."""
LINGER_S = 1.0
PING_S = 25.0
PONG_S = 8.0
GONE_MS = 30_000
"""The kernel drops a connection whose peer acknowledges nothing, or has no room for anything, for this long."""
GRACE_S = 3


class PatientHttp(H11Protocol):
    """HTTP/1.1 that answers 408 to a request that does not become complete. Source: CWE-400, "slow loris"."""

    _late: asyncio.TimerHandle | None = None
    _given_up = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        """Begin to wait for the first request."""
        super().connection_made(transport)
        peer = transport.get_extra_info("socket")
        if (
            peer is not None
            and peer.family in {socket.AF_INET, socket.AF_INET6}
            and hasattr(socket, "TCP_USER_TIMEOUT")
        ):
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, GONE_MS)
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Wait until there is a whole request, whatever trickles in meanwhile."""
        if self._given_up:
            return
        super().data_received(data)
        if self.transport.get_protocol() is not self or self.conn.their_state in {h11.DONE, h11.MUST_CLOSE}:
            self._stop_waiting()
        elif self._late is None:
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody to wait for."""
        self._stop_waiting()
        super().connection_lost(exc)

    def _wait(self) -> None:
        self._late = self.loop.call_later(HEADERS_S, self._give_up)

    def _stop_waiting(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _give_up(self) -> None:
        self._late = None
        self._given_up = True
        if self.conn.our_state is h11.IDLE:
            self.transport.write(b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
            self.transport.write_eof()  # closed at once, with bytes unread, the kernel would take the answer back
        self.loop.call_later(LINGER_S, self.transport.close)


class PatientSocket(WebSocketsSansIOProtocol):
    """A WebSocket whose close frame does not wait for a client that reads nothing."""

    async def send(self, message: Any) -> None:
        """Send; a close goes out, or into the buffer, at once."""
        if message["type"] == "websocket.close":
            self.writable.set()
        await super().send(message)


class Server(uvicorn.Server):
    """Drains the gateway before uvicorn closes what is left."""

    def __init__(self, config: uvicorn.Config, gateway: Gateway, drain_s: float) -> None:
        super().__init__(config)
        self._gateway = gateway
        self._drain_s = drain_s

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """End on SIGTERM and SIGINT, and leave with code 0: uvicorn would raise the signal once more."""
        loop = asyncio.get_running_loop()
        for sign in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(sign, self.handle_exit, sign, None)
        try:
            yield
        finally:
            for sign in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(sign)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop listening, send everyone away over some seconds, then close."""
        for server in self.servers:
            server.close()
        await self._gateway.drain(self._drain_s)
        await super().shutdown(sockets)


def serve(application: Any, gateway: Gateway, *, host: str, port: int, drain_s: float) -> Server:
    """Return a server for *application*, in which *gateway* is mounted; `await .serve()` runs it until a signal."""
    config = uvicorn.Config(
        application,
        host=host,
        port=port,
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
    return Server(config, gateway, drain_s)
