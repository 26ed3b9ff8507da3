"""A process that takes a lock and says what it sees, line by line. Run by tests, which kill and stop it.

`python lock_process.py <url> <namespace> <lease> hold`: hold the lock until the end of input.
`… count <times>`: take the lock again and again; add one to what it guards, read and written apart.
`… race <times>`: the same without the lock, as it would be if locks did nothing.
"""

from __future__ import annotations

import asyncio
import os
import sys

from cachebus.errors import LockLost, LockUnavailable, StaleToken
from cachebus.locks.locks import Locks
from cachebus.redis.client import Client


def say(*words: object) -> None:
    """Print a line at once."""
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


async def hold(locks: Locks, lease: str) -> None:
    """Hold the lock; when it is lost, say so, and try to write all the same."""
    token = 0
    try:
        async with locks.lock("the lock", lease) as held:
            token = held.token
            await locks.guarded_set("the value", "mine", held.token)
            say("holding", held.token)
            await asyncio.to_thread(sys.stdin.read)
            say("done")
    except LockLost:
        say("lost")
        try:
            await locks.guarded_set("the value", "too late", token)
        except StaleToken:
            say("refused")


async def count(locks: Locks, lease: str, times: int) -> None:
    """Add *times* times one, and say how often that was sure and how often nobody knows."""
    sure = unsure = 0
    say("begins")
    while sure + unsure < times:
        writing = False
        try:
            async with locks.lock("the lock", lease) as held:
                found = await locks.guarded_get("the value") or 0
                await asyncio.sleep(0.005)
                writing = True
                await locks.guarded_set("the value", found + 1, held.token)
            sure += 1
        except (LockLost, StaleToken, LockUnavailable):
            unsure += writing
            await asyncio.sleep(0.01)
    say("done", sure, unsure)


async def race(locks: Locks, times: int) -> None:
    """Add *times* times one, and be sure of it."""
    say("begins")
    for _ in range(times):
        found = await locks.guarded_get("the value") or 0
        await asyncio.sleep(0.005)
        await locks.guarded_set("the value", found + 1, 1)
    say("done", times, 0)


async def main(url: str, namespace: str, lease: str, verb: str, times: str = "0") -> None:
    """Do one of them."""
    async with Client(url, store_url=os.environ.get("STORE_REDIS_URL"), namespace=namespace) as client:
        locks = Locks(client, owner=verb)
        doing = {"hold": lambda: hold(locks, lease), "race": lambda: race(locks, int(times))}
        await doing.get(verb, lambda: count(locks, lease, int(times)))()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
