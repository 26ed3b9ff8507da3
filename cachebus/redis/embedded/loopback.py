"""Servers on this machine's own network: a port to listen on, one question to whoever listens. Blocking, no driver."""

from __future__ import annotations

import secrets
import socket
from contextlib import suppress
from typing import IO, Any

from cachebus.errors import CommandRefused

HOST = "127.0.0.1"
PORTS = range(10_000, 22_768)
"""Below the ports the kernel lends to outgoing connections, 10,000 for a cluster's bus added: else a client that
reconnects to a server which is away may be lent the server's own port, connect to itself, and keep it away."""
ANSWER_TIMEOUT_S = 1.0


def free_port() -> int:
    """Return a loopback port that nobody listens on at this moment."""
    while True:
        port = PORTS[secrets.randbelow(len(PORTS))]  # not `random`, which test runs seed: all would try the same ports
        with socket.socket() as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((HOST, port))
            return port


def ask(port: int, *command: str | bytes | int, timeout_s: float = ANSWER_TIMEOUT_S) -> Any:
    """Send one command over a connection of its own; return bytes, int, None or a list of these.

    Raises: CommandRefused for an error reply, OSError when nobody answers.
    """
    words = [word if isinstance(word, bytes) else str(word).encode() for word in command]
    with socket.create_connection((HOST, port), timeout_s) as connection:
        connection.sendall(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words))
        with connection.makefile("rb") as stream:
            return _read_reply(stream)


def _read_reply(stream: IO[bytes]) -> Any:
    line = stream.readline()
    if not line.endswith(b"\r\n"):
        raise ConnectionResetError("the server closed the connection")
    kind, text = line[:1], line[1:-2]
    if kind == b"-":
        raise CommandRefused(text.decode())
    if kind == b"+":
        return text
    number = int(text)
    if kind == b":":
        return number
    if number < 0:
        return None
    if kind == b"*":
        return [_read_reply(stream) for _ in range(number)]
    return stream.read(number + 2)[:-2]
