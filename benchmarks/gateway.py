"""The gateway: 1,000 sockets, and the same with 50 of them stalled: time from the feed to the last byte in a client."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
from typing import Any

from starlette.applications import Starlette
from websockets.asyncio.client import ClientConnection, connect

from benchmarks.report import Report
from cachebus import Link
from cachebus.private_server import PrivateServer
from cachebus.sessions import SessionStore
from gateway import Gateway
from gateway.server import serve

SOCKETS = 1000
STALLED = 50
MESSAGES = 100
PAUSE_S = 0.1
"""Ten messages a second to a thousand sockets are 10,000 a second; gateway and clients share one process here."""
SIZE = 2000


async def append(link: Link, clock: int) -> None:
    """Write one record to the feed, in the form that a commit gives it; its data is when."""
    body = {"id": f"7-{clock}", "ts": 1, "fresh_after": "1", "topic": "market:A", "type": "t"}
    record = json.dumps({**body, "data": [time.perf_counter(), "x" * SIZE]}, separators=(",", ":"))
    before = f"7-{clock - 1}" if clock > 1 else ""
    await link.store.call(
        *("XADD", link.names.feed, f"{clock}-0", "before", before, "topic", "market:A", "record", record)
    )


async def read(opened: ClientConnection, delays_ms: list[float]) -> None:
    """Read every message; note how long each was on its way."""
    seen = 0
    while seen < MESSAGES:
        said: dict[str, Any] = json.loads(await opened.recv())
        if said["topic"] is not None:
            delays_ms.append((time.perf_counter() - said["data"][0]) * 1000)
            seen += 1


async def measure(server: PrivateServer, stalled: int) -> tuple[list[float], int]:
    """Return the delays of those who read, and for how many clients something still waits, or they were closed."""
    delays_ms: list[float] = []
    async with Link(server.url, namespace=f"bench{stalled}") as link, contextlib.AsyncExitStack() as stack:
        sessions = SessionStore(link)
        gateway = await stack.enter_async_context(Gateway(link, public_topics=["market:*"], cookie="sid"))
        await gateway.begun()
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=SOCKETS))
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16_384)  # else the kernel takes it all: nobody stalls
        port = listener.getsockname()[1]
        web = serve(Starlette(routes=gateway.routes()), gateway, host="127.0.0.1", port=port, drain_s=0.0)
        running = asyncio.create_task(web.serve([listener]))
        headers = {"Cookie": f"sid={await sessions.create(42)}"}
        opened = []
        for number in range(SOCKETS):
            end = socket.socket()
            if number < stalled:
                end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            end.connect(("127.0.0.1", port))
            one = await connect(
                f"ws://127.0.0.1:{port}/ws", sock=end, additional_headers=headers, ping_interval=None, compression=None
            )
            await one.send('{"op": "hello", "topics": ["market:A"]}')
            await one.recv()
            opened.append(one)
        for one in opened[:stalled]:
            one.transport.pause_reading()
        readers = [asyncio.create_task(read(one, delays_ms)) for one in opened[stalled:]]
        for clock in range(1, MESSAGES + 1):
            await append(link, clock)
            await asyncio.sleep(PAUSE_S)
        await asyncio.gather(*readers)
        waiting = sum(client.outbox.since is not None for client in gateway.hub.clients)
        for one in opened:
            one.transport.abort()
        web.should_exit = True
        await running
        return sorted(delays_ms), waiting + gateway.hub.counts["slow"]


def main() -> None:
    """Run both and write `.data/benchmarks/gateway.json`."""
    report = Report("gateway")
    with PrivateServer.start("appendonly no") as server:
        for stalled in (0, STALLED):
            delays_ms, held_up = asyncio.run(measure(server, stalled))
            what = f"{SOCKETS:,} sockets, {stalled} stalled"
            assert len(delays_ms) == MESSAGES * (SOCKETS - stalled), "a message was lost"
            assert held_up == stalled, f"{held_up} clients are held up, not {stalled}"
            for share in (50, 95, 99):
                at = delays_ms[min(len(delays_ms) - 1, len(delays_ms) * share // 100)]
                report.add(f"{what}: feed to client, p{share}", at, "ms", f"{held_up} held up")
    report.write("starlette", "uvicorn", "websockets")


if __name__ == "__main__":
    main()
