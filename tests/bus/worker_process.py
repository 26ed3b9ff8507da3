"""A worker of its own process, to be killed: `python worker_process.py URL NAMESPACE NAME LEASE`.

Handles `numbers` (broadcasts the number), and dies where an event says so:
`{"n": 1, "die": "handler"}` inside the handler, `"die": "retry"` when it is retried, `"die": "before commit"` with the
effects in hand, `"die": "after commit"` when they are written and the answer is on its way.
Appends every number it handles to the file NUMBERS, if that is set.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any, Literal

import msgspec

from cachebus.bridge import Bridge
from cachebus.consumer import Consumer
from cachebus.effects import Broadcast, Effects, Invalidate, Retry
from cachebus.events import Event
from cachebus.handlers import on
from cachebus.link import Link

dying = ""


class Number(msgspec.Struct):
    n: int
    die: Literal["", "handler", "retry", "before commit", "after commit"] = ""


def die() -> None:
    """End as `kill -9` does."""
    os.kill(os.getpid(), signal.SIGKILL)


@on("numbers", Number, name="numbers", backoff="1ms")
def numbers(event: Number, envelope: Event) -> Effects:
    """Broadcast the number; effects are written once however often this runs."""
    global dying  # noqa: PLW0603 - what the process is to do next
    if event.die == "retry" and envelope.attempt == 1:
        raise Retry("1ms")
    if event.die in ("handler", "retry"):
        die()
    dying = dying or event.die
    if path := os.environ.get("NUMBERS"):
        with Path(path).open("a") as file:
            file.write(f"{event.n}\n")
    yield Invalidate(tags=[f"n:{event.n}"])
    yield Broadcast("numbers", "n", event.n)


def watch(link: Link) -> None:
    """Die around the commit, if an event said so."""
    run = link.store.run

    async def watched(verb: str, *args: Any, **kwargs: Any) -> Any:
        if verb == "commit" and dying == "before commit":
            die()
        reply = await run(verb, *args, **kwargs)
        if verb == "commit" and dying == "after commit":
            die()
        return reply

    link.store.run = watched  # type: ignore[method-assign] # the point of it


async def main(url: str, namespace: str, name: str, lease: str) -> None:
    """Work until killed."""
    async with Link(url, namespace=namespace) as link:
        watch(link)
        parts: list[Consumer | Bridge] = [Consumer(link, [numbers], worker=name, lease=lease), Bridge(link, [numbers])]
        print("ready", flush=True)  # noqa: T201 - tells the test
        await asyncio.gather(*[part.run() for part in parts])


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
