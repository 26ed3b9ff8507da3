"""What clients send to a server, by the server's own account."""

from __future__ import annotations

import secrets
import socket
from typing import Self

from cachebus.testing.server import PrivateServer


class Sent:
    """How many commands that name *what* clients have sent since the last time it was asked. Those of scripts apart."""

    def __init__(self, server: PrivateServer, what: str) -> None:
        self._server, self._what = server, what.encode()
        self._socket = socket.create_connection(("127.0.0.1", server.port))
        self._socket.sendall(b"MONITOR\r\n")
        self._lines = self._socket.makefile("rb")
        assert self._lines.readline() == b"+OK\r\n"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._lines.close()
        self._socket.close()

    def count(self) -> int:
        """Return how many there were."""
        until = secrets.token_hex(8)
        self._server.ask("ECHO", until)
        lines: list[bytes] = []
        while until.encode() not in (line := self._lines.readline()):
            lines.append(line)
        return sum(self._what in line and b" lua] " not in line for line in lines)
