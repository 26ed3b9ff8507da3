"""`get_redis_info` and `redis_client`: a look at the server itself, for people and health checks."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

from cachebus import ServerError
from cachebus.wire import Argument, Wire
from tradesense.caching.shared import facade, primitives

CALL_S = 5.0
"""How long one command of a person may take."""


def get_redis_info() -> dict[str, Any]:
    """Return the server's INFO by name, numbers as numbers, with `status`: "ok", "unavailable" or "disabled".

    Never raises because the server is away: a health check wants to know.
    """
    if not facade.cache.settings.redis_enabled:
        return {"status": "disabled"}
    try:
        text = primitives.run(_call("INFO"))
    except ServerError as away:
        return {"status": "unavailable", "error": str(away)}
    lines = (line.partition(":") for line in text.splitlines() if ":" in line and not line.startswith("#"))
    return {"status": "ok", **{name: _value(value) for name, _, value in lines}}


class RedisClient:
    """A few commands for a person who looks. Blocks; not for an application's own data."""

    def ping(self) -> bool:
        """Return True. Raises: ServerError."""
        return bool(primitives.run(_call("PING")) == "PONG")

    def keys(self, pattern: str = "*") -> list[str]:
        """Return the names that match, in order. Walks the keys (SCAN) instead of holding up the server (KEYS)."""

        async def walk() -> list[str]:
            found: set[str] = set()
            cursor = "0"
            while True:
                cursor, names = await _call("SCAN", cursor, "MATCH", pattern, "COUNT", 1000)
                found.update(names)
                if cursor == "0":
                    return sorted(found)

        return primitives.run(walk())

    def execute_command(self, *command: Argument) -> Any:
        """Send one command and return its reply, bytes as text where they are text. Raises: ServerError."""
        return primitives.run(_call(*command))

    def monitor(self) -> Monitor:
        """Return what shows every command the server runs: `with redis_client.monitor() as lines: next(lines)`.

        It connects when entered. A server that is watched is slower: for development.
        """
        return Monitor()


class Monitor:
    """The commands a server runs, one line each, as they come. Iteration blocks; it ends with the connection."""

    def __init__(self) -> None:
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._wire: Wire | None = None

    async def _open(self) -> Wire:
        await primitives.cache.connected()
        link = primitives.cache.link
        wire = await link.store.dedicated(link.names.ledger, lambda line: self._lines.put(_text(line)))
        await wire.call("MONITOR")
        wire.lost.add_done_callback(lambda _: self._lines.put(None))
        return wire

    def __enter__(self) -> Iterator[str]:
        self._wire = primitives.run(self._open())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._wire is not None:
            primitives.run(self._wire.close())

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        line = self._lines.get()
        if line is None:
            raise StopIteration
        return line


async def _call(*command: Argument) -> Any:
    await primitives.cache.connected()
    link = primitives.cache.link
    key = str(command[1]) if len(command) > 1 else link.names.ledger
    return _text(await link.store.call(*command, key=key, timeout_s=CALL_S))


def _text(reply: Any) -> Any:
    if isinstance(reply, list):
        return [_text(item) for item in reply]
    return reply.decode(errors="replace") if isinstance(reply, bytes) else reply


def _value(text: str) -> Any:
    if "=" in text and not text.startswith("["):
        return {name: _value(value) for name, _, value in (part.partition("=") for part in text.split(","))}
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    return text


redis_client = RedisClient()
