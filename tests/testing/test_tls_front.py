"""The TLS front that tests put before a server."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from cachebus.redis.embedded.loopback import HOST
from cachebus.testing.server import PrivateServer
from tests.support.tls_front import TlsFront


@pytest.fixture
def server() -> Iterator[PrivateServer]:
    """Return a server of this test's own."""
    with PrivateServer.start() as server:
        yield server


@pytest.fixture
def front(server: PrivateServer, tmp_path: Path) -> Iterator[TlsFront]:
    """Return a TLS front before it."""
    with TlsFront(server.port, tmp_path) as front:
        yield front


def connect(front: TlsFront, trusted: Path | None) -> ssl.SSLSocket:
    """Connect as a client that trusts *trusted*."""
    context = ssl.create_default_context(cafile=str(trusted) if trusted else None)
    return context.wrap_socket(socket.create_connection((HOST, front.port)), server_hostname=HOST)


def test_what_is_asked_through_tls_is_answered(front: TlsFront) -> None:
    """A client that trusts the authority talks to the server behind."""
    with connect(front, front.authority) as connection:
        connection.sendall(b"PING\r\n")
        assert connection.recv(100) == b"+PONG\r\n"


def test_nobody_trusts_it_by_default(front: TlsFront) -> None:
    """A client that does not know the authority refuses the certificate."""
    with pytest.raises(ssl.SSLCertVerificationError):
        connect(front, None)


def test_a_server_that_ends_ends_its_connections(front: TlsFront, server: PrivateServer) -> None:
    """What a client of the server would see, a client of the front sees: the connection closes, a new one too."""
    with connect(front, front.authority) as connection:
        connection.sendall(b"PING\r\n")
        connection.recv(100)
        server.kill()
        assert connection.recv(100) == b""
    with connect(front, front.authority) as connection:
        assert connection.recv(100) == b""


def test_stopped_it_closes_what_is_open(front: TlsFront) -> None:
    """`stop`, twice, ends open connections and frees the port."""
    with connect(front, front.authority) as connection:
        connection.sendall(b"PING\r\n")
        connection.recv(100)
        front.stop()
        front.stop()
        with pytest.raises(ConnectionError):
            socket.create_connection((HOST, front.port))
        assert connection.recv(100) == b""
