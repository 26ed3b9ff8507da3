"""A contestant's process: `benchmarks.turns` says on standard input what to prepare and when to run it.

It knows nothing but Python's own library, so that it runs in each contestant's environment. What a contestant prepares
yields its works by name; one is called and awaited, and answered with what it cost this process, all threads counted.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import json
import sys
import time
import traceback
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any

CALLS_A_TURN = 1000
"""Keys of one caller begin at a multiple of this."""

Works = dict[str, Callable[[], Any]]
"""A work that returns a number has taken its own CPU time, in seconds."""
Contestant = Callable[..., AbstractAsyncContextManager[Works]]


def serve(contestants: dict[str, Contestant]) -> None:
    """Be told until standard input ends."""
    asyncio.run(_serve(contestants))


async def _serve(contestants: dict[str, Contestant]) -> None:
    orders = asyncio.StreamReader(limit=2**20)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    answers, sys.stdout = sys.stdout, sys.stderr  # what libraries print is no answer
    works: Works = {}
    async with AsyncExitStack() as stack:
        while line := await orders.readline():
            order: dict[str, Any] = json.loads(line)
            try:
                if "open" in order:
                    works = await stack.enter_async_context(contestants[order["open"]](**order["given"]))
                    answer: dict[str, Any] = {"works": list(works)}
                elif "run" in order:
                    answer = await _cost(works[order["run"]])
                else:
                    await stack.aclose()
                    answer = {}
            except Exception:  # noqa: BLE001 - whatever a library raises is told to who asked
                answer = {"error": traceback.format_exc()}
            print(json.dumps(answer), file=answers, flush=True)


async def _cost(work: Callable[[], Any]) -> dict[str, float]:
    gc.collect()
    began, cpu = time.perf_counter(), time.process_time()
    result = work()
    if inspect.isawaitable(result):
        result = await result
    own = result if isinstance(result, float) else time.process_time() - cpu
    return {"client_s": own, "wall_s": time.perf_counter() - began}


def one_caller(call: Callable[[int], Awaitable[object]], times: int, key: int = CALLS_A_TURN) -> Callable[[], Any]:
    """Return a work: one caller asks *times* times for one key."""

    async def work() -> None:
        for _ in range(times):
            await call(key)

    return work


def callers(call: Callable[[int], Awaitable[object]], count: int, times: int) -> Callable[[], Any]:
    """Return a work: *count* callers at once ask *times* times altogether, each for keys of its own."""

    async def caller(number: int) -> None:
        for turn in range(times // count):
            await call(number * CALLS_A_TURN + turn)

    async def work() -> None:
        await asyncio.gather(*[caller(number) for number in range(count)])

    return work
