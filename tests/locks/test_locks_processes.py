"""Locks between processes that are killed, that stand still, and that all want the same."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import pytest

from cachebus.locks.locks import Locks
from cachebus.redis.client import Client
from cachebus.testing.server import PrivateServer
from tests.support.waiting import until

PROGRAM = Path(__file__).parents[1] / "support/lock_process.py"
ROOT = Path(__file__).parents[2]
Begin = Callable[..., Awaitable[Process]]


@pytest.fixture
async def begin(server: PrivateServer, client: Client) -> AsyncIterator[Begin]:
    """Start a process on this test's locks; it is gone when the test is."""
    started: list[Process] = []

    async def begin(lease: str, *verb: str) -> Process:
        command = (sys.executable, str(PROGRAM), server.url, client.names.namespace, lease, *verb)
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        started.append(await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, env=environment))
        return started[-1]

    yield begin
    for process in started:
        with suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


async def line(process: Process) -> list[str]:
    """Return the words of the next line that *process* says."""
    assert process.stdout is not None
    return (await asyncio.wait_for(process.stdout.readline(), 30)).decode().split()


async def test_a_killed_holder_is_succeeded_when_its_lease_ends(client: Client, begin: Begin) -> None:
    """After kill -9 the next in line has the lock within the lease and a moment, with a later token."""
    process = await begin("1s", "hold")
    _, token = await line(process)
    locks = Locks(client)
    waiting = asyncio.create_task(locks.lock("the lock").acquire())
    await until(lambda: locks.counts["waited"])
    process.kill()
    held = await asyncio.wait_for(waiting, 20)
    assert held.token > int(token)
    await held.release()


async def test_a_holder_that_stood_still_learns_that_it_lost_the_lock(client: Client, begin: Begin) -> None:
    """SIGSTOP past the lease: another holds it; on waking the body is cancelled, and a write is refused."""
    process = await begin("600ms", "hold")
    _, token = await line(process)
    process.send_signal(signal.SIGSTOP)
    try:
        locks = Locks(client)
        async with locks.lock("the lock") as held:
            assert held.token > int(token)
            await locks.guarded_set("the value", "theirs", held.token)
            process.send_signal(signal.SIGCONT)
            assert await line(process) == ["lost"]
            assert await line(process) == ["refused"]
            assert await locks.guarded_get("the value") == "theirs"
    finally:
        process.send_signal(signal.SIGCONT)


async def test_whoever_is_dead_in_line_is_passed_over(client: Client, begin: Begin) -> None:
    """A process that was killed while it waited costs the others less than a second or so, not its lease."""
    locks = Locks(client)
    held = await locks.lock("the lock").acquire()
    process = await begin("30s", "hold")

    async def waiting() -> int:
        seen = await locks.holder("the lock")
        return seen.waiting if seen is not None else 0

    await until(lambda: _is(waiting(), 1))
    next_one = asyncio.create_task(locks.lock("the lock").acquire())
    await until(lambda: _is(waiting(), 2))
    process.kill()
    await process.wait()
    await held.release()
    await (await asyncio.wait_for(next_one, 10)).release()


async def _is(number: Awaitable[int], expected: int) -> bool:
    return await number == expected


async def test_processes_that_add_to_one_value_lose_nothing(client: Client, begin: Begin) -> None:
    """Four processes read, add one and write, 25 times each, under one lock: 100."""
    processes = [await begin("10s", "count", "25") for _ in range(4)]
    for process in processes:
        assert await line(process) == ["begins"]
    assert [await line(process) for process in processes] == [["done", "25", "0"]] * 4
    assert await Locks(client).guarded_get("the value") == 100


async def test_two_holders_never_both_write(client: Client, begin: Begin) -> None:
    """Processes are stopped past their lease in the midst of it, again and again: no sure write is ever lost."""
    processes = [await begin("300ms", "count", "40") for _ in range(3)]
    for process in processes:
        await line(process)
    locks, token = Locks(client), 0
    for turn in range(6):
        stopped = processes[turn % 3]
        if stopped.returncode is None:
            stopped.send_signal(signal.SIGSTOP)
        try:
            async with locks.lock("the lock") as held:  # whoever had it, has it no more
                assert held.token > token
                token = held.token
        finally:
            with suppress(ProcessLookupError):
                stopped.send_signal(signal.SIGCONT)
    said = [await line(process) for process in processes]
    sure, unsure = sum(int(words[1]) for words in said), sum(int(words[2]) for words in said)
    assert sure + unsure == 120
    assert sure <= await locks.guarded_get("the value") <= sure + unsure
