"""A server that notes every command on its way, for tests that count round trips or look at the keys of scripts.

It is patient, too: a busy machine decides no test that is not about outages.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cachebus.redis.server import TIMEOUT_S, Server

PATIENCE_S = 10.0


class WatchedServer:
    """Passes everything on. `commands` holds (name or verb, keys) of each."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.commands: list[tuple[str, tuple[str, ...]]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._server, name)

    async def call(self, *command: Any, key: str | None = None, timeout_s: float = TIMEOUT_S) -> Any:
        """Note and pass on."""
        self.commands.append((str(command[0]), () if key is None else (key,)))
        return await self._server.call(*command, key=key, timeout_s=max(timeout_s, PATIENCE_S))

    async def run(
        self, verb: str, keys: Sequence[str], args: Sequence[Any] = (), *, timeout_s: float = TIMEOUT_S
    ) -> Any:
        """Note and pass on."""
        self.commands.append((verb, tuple(keys)))
        return await self._server.run(verb, keys, args, timeout_s=max(timeout_s, PATIENCE_S))
