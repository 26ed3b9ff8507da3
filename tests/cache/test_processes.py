"""Real processes on one server: nobody reads what its own journal says is old, and a cold key is loaded once."""

from __future__ import annotations

import asyncio
import json
import random
import sys
from pathlib import Path

import pytest

from cachebus import Cache
from cachebus.testing import FaultProxy
from cachebus.testing.server import PrivateServer
from tests.conftest import Connect
from tests.support.reading_process import KEYS

ROOT = Path(__file__).parents[2]
READERS, READS = 3, 600


async def start(*arguments: str) -> asyncio.subprocess.Process:
    """Start a process of ours, its output to be read."""
    return await asyncio.create_subprocess_exec(
        sys.executable, *arguments, stdout=asyncio.subprocess.PIPE, cwd=ROOT, limit=1 << 22
    )


async def stale_reads(cache: Cache, url: str, namespace: str, *extra: str, reads: int = READS) -> tuple[int, int]:
    """Run readers and one writer; return how many reads were older than their journal, and how many there were."""
    draw = random.Random(7)  # noqa: S311 - a run that can be had again
    versions = dict.fromkeys(range(KEYS), 0)
    returned: list[tuple[int, int, int]] = []
    readers = [
        await start("-m", "tests.support.reading_process", url, namespace, str(seed), str(reads), *extra)
        for seed in range(READERS)
    ]
    gathered = asyncio.gather(*[reader.communicate() for reader in readers])
    while not gathered.done():
        n = draw.randrange(KEYS)
        versions[n] += 1
        await cache.client.store.call("HSET", f"{namespace}:database", n, versions[n])
        await cache.client.store.call("EXPIRE", f"{namespace}:database", 600)
        kind = draw.randrange(4)
        if kind == 0:
            clock = await cache.invalidate(keys=[f"item:{n}:version"])
        elif kind == 1:
            clock = await cache.invalidate(tags=[f"item:{n}"])
        else:
            clock = await cache.invalidate(prefix=f"item:{n}:") if kind == 2 else await cache.clear()
        returned.append((int(clock.partition(".")[0]), n, versions[n]))
        await asyncio.sleep(draw.random() * 0.01)
    stale = total = 0
    for output, _ in await gathered:
        for line in output.splitlines():
            position, n, version = json.loads(line)
            floor = max((v for clock, key, v in returned if key == n and clock <= position), default=0)
            stale += version < floor
            total += 1
    assert [reader.returncode for reader in readers] == [0] * READERS
    return stale, total


async def test_no_process_reads_what_its_journal_says_is_old(
    cache: Cache, server: PrivateServer, namespace: str
) -> None:
    """Three readers, one writer, slow loads, key, tag, prefix and clear: not one stale read."""
    stale, total = await stale_reads(cache, server.url, namespace)
    assert total >= READERS * READS * 0.9
    assert stale == 0


async def test_the_same_with_a_slow_network(cache: Cache, proxy: FaultProxy, namespace: str) -> None:
    """Replies that are late change nothing."""
    proxy.delay_s = 0.005
    stale, total = await stale_reads(cache, proxy.url, namespace)
    assert total >= READERS * READS * 0.9
    assert stale == 0


async def test_the_same_with_whatever_is_invalidated_loaded_ahead(
    cache: Cache, server: PrivateServer, namespace: str
) -> None:
    """A load ahead is as fresh as any: it may be invalidated while it runs, and after."""
    stale, total = await stale_reads(cache, server.url, namespace, "--predict", reads=READS // 6)
    assert total >= READERS * READS // 6 * 0.9
    assert stale == 0


async def test_without_the_rule_the_same_harness_finds_stale_reads(
    cache: Cache, server: PrivateServer, namespace: str
) -> None:
    """It is able to fail: values stored as if born after their load are served stale."""
    stale, _ = await stale_reads(cache, server.url, namespace, "--broken")
    assert stale > 0


COLD = """
import asyncio, sys
from cachebus import Cache, CacheSettings
async def main(url, namespace, hang):
    async with Cache(settings=CacheSettings(url=url, namespace=namespace)) as cache:
        loads = 0
        @cache.view("cold:{n}", ttl="1m")
        async def cold(n: int) -> int:
            nonlocal loads
            loads += 1
            print("loading", flush=True)
            await asyncio.sleep(60 if hang else 0.3)
            return n
        print("ready", flush=True)
        sys.stdin.readline()
        assert set(await asyncio.gather(*[cold(1) for _ in range(50)])) == {1}
        print("loads", loads, flush=True)
asyncio.run(main(sys.argv[1], sys.argv[2], len(sys.argv) > 3))
"""


async def cold_process(server: PrivateServer, namespace: str, *extra: str) -> asyncio.subprocess.Process:
    """Start a process that waits for a line before it reads the cold key."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", COLD, server.url, namespace, *extra),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"ready\n"
    return process


async def test_eight_processes_of_fifty_callers_cause_one_load(server: PrivateServer, namespace: str) -> None:
    """The whole cluster asks the database once."""
    processes = [await cold_process(server, namespace) for _ in range(8)]
    outputs = await asyncio.gather(*[process.communicate(b"go\n") for process in processes])
    assert sum(int(output.split()[-1]) for output, _ in outputs) == 1


async def test_a_loader_that_is_killed_is_replaced_when_its_lease_ends(server: PrivateServer, namespace: str) -> None:
    """kill -9 in the middle of a load: the next process loads, nobody waits for ever."""
    victim = await cold_process(server, namespace, "hang")
    assert victim.stdin is not None
    assert victim.stdout is not None
    victim.stdin.write(b"go\n")
    assert await victim.stdout.readline() == b"loading\n"
    victim.kill()
    await victim.wait()
    heir = await cold_process(server, namespace)
    output, _ = await asyncio.wait_for(heir.communicate(b"go\n"), 60)
    assert output.split()[-1] == b"1"


@pytest.mark.parametrize("seed", ["0", "12345"])
async def test_keys_do_not_depend_on_the_hash_seed(connect: Connect, seed: str) -> None:
    """Two processes with different PYTHONHASHSEED name the same call alike."""
    program = (
        "import enum\nfrom cachebus import Cache\nfrom cachebus.templates import stored_name\n"
        "class E(enum.StrEnum):\n    A='a:b'\n"
        "async def f(x: str, y: E, z: float) -> int: return 1\n"
        "v = Cache.memory().view('k:{x}:{y}:{z}', ttl='1m')(f)\n"
        "print(v.key('ü:x' * 90, E.A, 1.5), stored_name(v.key('ü:x' * 90, E.A, 1.5)), v.codec.fingerprint)\n"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE, cwd=ROOT, env={"PYTHONHASHSEED": seed}
    )
    output, _ = await process.communicate()
    reference = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE, cwd=ROOT, env={"PYTHONHASHSEED": "7"}
    )
    assert output == (await reference.communicate())[0] != b""
