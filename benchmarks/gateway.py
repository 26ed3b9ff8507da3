"""The gateway: 1,000 sockets, in turn with 50 of them stalled: time from the feed to the last byte in a client."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import statistics
import time
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

from benchmarks.report import Report
from cachebus import Client
from cachebus.gateway import Gateway, live_app
from cachebus.gateway.server import serve
from cachebus.sessions.store import SessionStore
from cachebus.testing.server import PrivateServer

SOCKETS = 1000
STALLED = 50
ROUNDS = 3
MESSAGES = 100
PAUSE_S = 0.1
"""Ten messages a second to a thousand sockets are 10,000 a second; gateway and clients share one process here."""
SIZE = 2000


async def append(client: Client, clock: int) -> None:
    """Write one record to the feed, in the form that a commit gives it; its data is when."""
    body = {"id": f"7-{clock}", "ts": 1, "fresh_after": "1", "topic": "market:A", "type": "t"}
    record = json.dumps({**body, "data": [time.perf_counter(), "x" * SIZE]}, separators=(",", ":"))
    before = f"7-{clock - 1}" if clock > 1 else ""
    await client.store.call(
        *("XADD", client.names.feed, f"{clock}-0", "before", before, "topic", "market:A", "record", record)
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
    async with Client(server.url, namespace=f"bench{stalled}") as client, contextlib.AsyncExitStack() as stack:
        sessions = SessionStore(client)
        gateway = await stack.enter_async_context(Gateway(client, public_topics=["market:*"], cookie="sid"))
        await gateway.begun()
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=SOCKETS))
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16_384)  # else the kernel takes it all: nobody stalls
        port = listener.getsockname()[1]
        web = serve(live_app(gateway), gateway, drain_s=0.0)
        running = asyncio.create_task(web.serve([listener]))
        opened = []
        for number in range(SOCKETS):
            end = socket.socket()
            if number < stalled:
                end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            end.connect(("127.0.0.1", port))
            headers = {"Cookie": f"sid={await sessions.create(number)}"}  # a user each: one may have only a few sockets
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
            await append(client, clock)
            await asyncio.sleep(PAUSE_S)
        await asyncio.gather(*readers)
        waiting = sum(client.queue.since is not None for client in gateway.hub.clients)
        for one in opened:
            one.transport.abort()
        web.should_exit = True
        await running
        return sorted(delays_ms), waiting + gateway.hub.counts["slow"]


def main() -> None:
    """Run both and write `.data/benchmarks/gateway.json`."""
    report = Report("gateway", "The gateway")
    found: dict[int, list[dict[int, float]]] = {0: [], STALLED: []}
    for _ in range(ROUNDS):
        for stalled, rounds in found.items():
            with PrivateServer.start("appendonly no") as server:
                delays_ms, held_up = asyncio.run(measure(server, stalled))
            assert len(delays_ms) == MESSAGES * (SOCKETS - stalled), "a message was lost"
            assert held_up >= stalled, f"only {held_up} clients are held up, not {stalled}"
            if held_up > stalled:  # on a busy machine others may lag, too; that is in their delays
                print(f"  {held_up - stalled} more clients than the stalled were held up")
            rounds.append({share: delays_ms[len(delays_ms) * share // 100] for share in (50, 95, 99)})
    for share in (50, 95, 99):
        medians = {}
        for stalled, rounds in found.items():
            medians[stalled] = statistics.median(each[share] for each in rounds)
            every = ", ".join(f"{each[share]:.1f}" for each in rounds)
            what = f"{SOCKETS:,} sockets, {stalled} stalled: feed to client, p{share}"
            report.add(what, medians[stalled], "ms", f"rounds: {every}")
        report.want(f"50 stalled of 1,000, p{share} of the others", medians[STALLED] / medians[0], 1.1)
    report.write("starlette", "uvicorn", "websockets")


if __name__ == "__main__":
    main()
