"""TLS: certificates are read once, and again when a file that the URL names has changed."""

from __future__ import annotations

import contextlib
import os
import ssl
from pathlib import Path

import pytest

from cachebus import Client
from cachebus.errors import Unavailable
from cachebus.testing.server import PrivateServer
from tests.support.waiting import until
from tests.support.ways_in import url_for


async def test_certificates_are_read_once_and_again_when_they_changed(
    server: PrivateServer, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reconnect does not stop the loop to read the machine's authorities; a rotated file counts at the next one."""
    read, create = [], ssl.create_default_context
    monkeypatch.setattr(ssl, "create_default_context", lambda: read.append(1) or create())
    with url_for("tls", server, tmp_path) as url:
        async with Client(url, namespace=namespace) as client:

            async def answers() -> bool:
                with contextlib.suppress(Unavailable):
                    return bool(await client.store.call("PING") == b"PONG")
                return False

            async def reconnected() -> None:
                client.store.reconnect(Unavailable("the test asks for it"))
                assert not await answers()
                await until(answers, "a new connection")

            await reconnected()
            await reconnected()
            assert len(read) == 1
            authority = url.partition("ssl_ca_certs=")[2]
            os.utime(authority, ns=(1, 1))
            await reconnected()
            assert len(read) == 2
