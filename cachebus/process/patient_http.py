"""HTTP with patience that ends: what uvicorn does not do by itself is to give up on a request that never ends."""

from __future__ import annotations

import asyncio
import socket

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

HEADERS_S = 10.0
"""A request has to be complete after this time."""
LINGER_S = 1.0
GONE_MS = 30_000
"""The kernel drops a connection whose peer acknowledges nothing, or has no room for anything, for this long."""


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
