"""What one server is, for `doctor` and the live page: asked, never guessed; what it refuses to say is left out."""

from __future__ import annotations

import contextlib
import statistics
import time

from cachebus.errors import ServerError
from cachebus.monitoring.verdict.diagnosis import Facts
from cachebus.redis.address import Address
from cachebus.redis.server import Server

PINGS = 5


async def examine(server: Server, url: str | None, key: str, *, keeps: bool, caches: bool) -> Facts:
    """Ask one server what it is; what it refuses to say is left out. Raises: ServerError when it is unavailable."""
    trips = []
    for _ in range(PINGS):
        began = time.perf_counter()
        seconds, micros = await server.call("TIME")
        trips.append((time.perf_counter() - began) * 1000)
    skew_s = int(seconds) + int(micros) / 1e6 - time.time()
    info: dict[str, str] = {}
    max_clients = None
    with contextlib.suppress(ServerError):  # managed servers keep some of it to themselves
        text = (await server.call("INFO")).decode()
        info = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    with contextlib.suppress(ServerError):
        _, limit = await server.call("CONFIG", "GET", "maxclients")
        max_clients = int(limit)
    refused = []
    try:
        await server.call("EVAL", "return redis.call('TIME')[1]", 1, key, key=key)
    except ServerError:
        refused.append("EVAL")
    known = True
    with contextlib.suppress(ServerError):
        known = None not in await server.call("COMMAND", "INFO", "ZMSCORE")
    address = Address(url) if url else None
    return Facts(
        name="store" if keeps and not caches else "entries" if caches and not keeps else "redis",
        host=address.hosts[0][0] if address and address.hosts else "127.0.0.1",
        info=info,
        keeps=keeps,
        caches=caches,
        tls=bool(url and url.startswith("rediss")),
        round_trip_ms=statistics.median(trips),
        skew_s=skew_s,
        max_clients=max_clients,
        known_commands=known,
        slots=server.slots and server.one_connection,
        refused=tuple(refused),
    )
