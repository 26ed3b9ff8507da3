"""A worker of its own process, to be killed: `python worker_process.py URL NAMESPACE NAME LEASE`.

Handles `numbers` (broadcasts the number), and dies where an event says so:
`{"n": 1, "die": "handler"}` inside the handler, `"die": "retry"` when it is retried, `"die": "before commit"` with the
effects in hand, `"die": "after commit"` when they are written and the answer is on its way; `"die": "hang"` blocks the
event loop for ever in a plain handler, `"die": "hang retry"` when it is retried, `"die": "hang async"` in an
asynchronous one, `"die": "deaf"` in one that swallows its cancellation; `"die": "exit"` and `"die": "base"` raise
what is no `Exception`. LIMIT is how long a handler may block.
Appends every number it handles to the file NUMBERS, if that is set.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any, Literal

import msgspec

from cachebus.bus.effects import Broadcast, Effects, Invalidate, Retry
from cachebus.bus.engine.bridge import Bridge
from cachebus.bus.engine.consumer import Consumer, ConsumerOptions
from cachebus.bus.events import Event
from cachebus.bus.handlers import on
from cachebus.redis.client import Client

dying = ""


class Number(msgspec.Struct):
    n: int
    die: Literal["", "handler", "retry", "before commit", "after commit", "hang", "hang retry", "exit", "base"] = ""


class Slow(msgspec.Struct):
    n: int
    die: Literal["", "hang async", "deaf", "exit", "base"] = ""


class Unusual(BaseException):
    """No `Exception`."""


def leave(how: str) -> None:
    """Raise what is no `Exception`, if that is how."""
    if how == "exit":
        sys.exit(1)
    if how == "base":
        raise Unusual("unusual")


def die() -> None:
    """End as `kill -9` does."""
    os.kill(os.getpid(), signal.SIGKILL)


@on("numbers", Number, name="numbers", backoff="1ms", longest_backoff="10ms")
def numbers(event: Number, envelope: Event) -> Effects:
    """Broadcast the number; effects are written once however often this runs."""
    global dying  # noqa: PLW0603 - what the process is to do next
    if "retry" in event.die and envelope.attempt == 1:
        raise Retry("1ms")
    if event.die in ("handler", "retry"):
        die()
    if event.die.startswith("hang"):
        time.sleep(3600)
    leave(event.die)
    dying = dying or event.die
    if path := os.environ.get("NUMBERS"):
        with Path(path).open("a") as file:
            file.write(f"{event.n}\n")
    yield Invalidate(tags=[f"n:{event.n}"])
    yield Broadcast("numbers", "n", event.n)


@on("slow", Slow, name="slow", backoff="1ms", timeout="200ms", retries=1)
async def slow(event: Slow) -> Effects:
    """Broadcast the number."""
    if event.die == "hang async":
        time.sleep(3600)  # noqa: ASYNC251 - the point of it
    leave(event.die)
    while event.die == "deaf":
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            continue
    return [Broadcast("numbers", "n", event.n)]


def watch(client: Client) -> None:
    """Die around the commit, if an event said so."""
    run = client.store.run

    async def watched(verb: str, *args: Any, **kwargs: Any) -> Any:
        if verb == "bus/engine/commit" and dying == "before commit":
            die()
        reply = await run(verb, *args, **kwargs)
        if verb == "bus/engine/commit" and dying == "after commit":
            die()
        return reply

    client.store.run = watched  # type: ignore[method-assign] # the point of it


async def main(url: str, namespace: str, name: str, lease: str) -> None:
    """Work until killed."""
    async with Client(url, namespace=namespace) as client:
        watch(client)
        parts: list[Consumer | Bridge] = [
            Consumer(
                client,
                [numbers, slow],
                worker=name,
                lease=lease,
                options=ConsumerOptions(handler_limit=os.environ.get("LIMIT", "60s")),
            ),
            Bridge(client, [numbers]),
        ]
        print("ready", flush=True)  # noqa: T201 - tells the test
        await asyncio.gather(*[part.run() for part in parts])


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
