"""A session store in a process of its own: `python session_process.py <url> <namespace> [--remembering]`.

Each line of input is a number, a method and its arguments; each of output the number and what came of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import sys
from collections.abc import AsyncIterator
from typing import Any, Self

from cachebus.errors import SessionsUnavailable, Unavailable
from cachebus.redis.client import Client
from cachebus.sessions.session import Session
from cachebus.sessions.store import SessionStore


class Remembering(SessionStore):
    """A store that keeps what it has read, as if a logout elsewhere could be waited for."""

    async def get(self, session_id: str | None, **given: Any) -> Session | None:
        """Return what was read once."""
        kept = self.__dict__.setdefault("_kept", {})
        found = kept.get(session_id) or await super().get(session_id, **given)
        if found is not None:
            kept[session_id] = found
        return found


class Elsewhere:
    """The store of such a process: `get` and `rotate` return something or None, `list_user` how many."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._numbers = itertools.count()
        self._asked: dict[int, asyncio.Future[Any]] = {}

    @classmethod
    @contextlib.asynccontextmanager
    async def started(cls, environment: dict[str, str], *arguments: str) -> AsyncIterator[Self]:
        """Run the process for as long as the block lasts, which begins when it is connected."""
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, __file__, *arguments), env=environment, stdin=pipe, stdout=pipe
        )
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"
        store = cls(process)
        reading = asyncio.create_task(store._read())
        try:
            yield store
        finally:
            process.kill()
            await process.wait()
            await reading

    async def get(self, session_id: str, **given: str) -> Any:
        """Return whether it is served, as something or None."""
        return await self._ask("get", session_id, **given)

    async def update(self, session_id: str, changes: dict[str, int]) -> Any:
        """Change it."""
        return await self._ask("update", session_id, changes)

    async def rotate(self, session_id: str) -> Any:
        """Give it another id."""
        return await self._ask("rotate", session_id)

    async def list_user(self, user: int) -> int:
        """Return how many sessions a user has."""
        return int(await self._ask("list_user", user))

    async def _ask(self, verb: str, *arguments: Any, **given: Any) -> Any:
        number = next(self._numbers)
        self._asked[number] = answer = asyncio.get_running_loop().create_future()
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([number, verb, arguments, given]).encode() + b"\n")
        failed, found = await answer
        if failed:
            raise SessionsUnavailable(failed)
        return found

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            number, *answer = json.loads(line)
            self._asked.pop(number).set_result(answer)
        for waiting in self._asked.values():
            waiting.cancel()


async def serve(store: SessionStore) -> None:
    """Answer until the end of input, several questions at once."""
    questions = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(questions), sys.stdin)
    async with asyncio.TaskGroup() as group:
        async for line in questions:
            group.create_task(answer(store, *json.loads(line)))


async def answer(store: SessionStore, number: int, verb: str, arguments: list[Any], given: dict[str, Any]) -> None:
    """Do one of them."""
    try:
        found = await getattr(store, verb)(*arguments, **given)
        said = [number, "", len(found) if verb == "list_user" else None if found is None else True]
    except (SessionsUnavailable, Unavailable) as reason:
        said = [number, str(reason), None]
    sys.stdout.write(json.dumps(said) + "\n")
    sys.stdout.flush()


async def main(url: str, namespace: str, *options: str) -> None:
    """Serve."""
    async with Client(url, store_url=os.environ.get("STORE_REDIS_URL"), namespace=namespace) as client:
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        await serve((Remembering if "--remembering" in options else SessionStore)(client))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
