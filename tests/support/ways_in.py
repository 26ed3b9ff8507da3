"""The ways into a server that platforms give: a password, a database other than 0, TLS, and all of them at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cachebus.testing.server import PrivateServer
from tests.support.tls_front import TlsFront

WAYS = ("password", "db 1", "tls", "password, db 1, tls")


@contextmanager
def url_for(way: str, server: PrivateServer, directory: Path) -> Iterator[str]:
    """Have *server* reachable that way; certificates are written to *directory*."""
    user, database = "", 1 if "db 1" in way else 0
    if "password" in way:
        server.ask("ACL", "SETUSER", "app", "on", ">se/cret", "~*", "&*", "+@all")
        user = "app:se%2Fcret@"
    if "tls" not in way:
        yield f"redis://{user}{server.host}:{server.port}/{database}"
        return
    with TlsFront(server.port, directory) as front:
        yield f"rediss://{user}{server.host}:{front.port}/{database}?ssl_ca_certs={front.authority}"
