"""When a cache connects, where it lives, and what it never says."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import subprocess
import sys
from pathlib import Path

import pytest

from cachebus import Cache, CacheSettings, ConfigurationError, sync
from cachebus.testing.server import PrivateCluster, PrivateServer
from tests.support.waiting import caught_up

ROOT = Path(__file__).parents[2]


def test_importing_and_declaring_connects_to_nothing_and_reads_no_environment() -> None:
    """A view is a plain object at import time, whatever REDIS_URL says."""
    program = (
        "import socket, os\n"
        "def refuse(*a, **k): raise AssertionError('connected')\n"
        "socket.socket.connect = refuse\n"
        "os.environ['REDIS_URL'] = 'nonsense'\n"
        "import tradesense.views\n"
        "print(len(tradesense.views.cache.views))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "9"), done.stderr


async def test_no_secret_of_a_url_is_ever_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Neither while connecting nor in what an object calls itself."""
    caplog.set_level(logging.DEBUG)
    async with Cache("redis://user:hunter2@127.0.0.1:1/0") as cache:
        said = f"{cache.client.store} {cache.client.store.address!r} {cache.stats()}"  # type: ignore[attr-defined]
    assert "127.0.0.1:1" in caplog.text
    assert "hunter2" not in caplog.text + said


def test_a_closed_loop_and_a_new_one_in_the_same_process(server: PrivateServer, namespace: str) -> None:
    """A cache used from a new loop connects anew."""
    cache = Cache(settings=CacheSettings(url=server.url, namespace=namespace))

    @cache.view("loops:{n}", ttl="1m")
    async def value(n: int) -> int:
        return n

    async def use() -> int:
        async with cache:
            return await value(1)

    assert [asyncio.run(use()), asyncio.run(use())] == [1, 1]


def _in_child(facade: sync.Cache, answers: multiprocessing.Queue[object]) -> None:
    answers.put(facade.get("forked"))


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")  # forking is the point
def test_a_forked_process_makes_connections_of_its_own(server: PrivateServer, namespace: str) -> None:
    """As gunicorn and Celery do it: used before the fork, used after it, in both."""
    facade = sync.Cache(Cache(settings=CacheSettings(url=server.url, namespace=namespace)))
    facade.set("forked", "yes", "1m")
    context = multiprocessing.get_context("fork")
    answers: multiprocessing.Queue[object] = context.Queue()
    child = context.Process(target=_in_child, args=(facade, answers))
    child.start()
    assert answers.get(timeout=30) == "yes"
    child.join()
    assert facade.get("forked") == "yes"
    facade.close()


def test_the_synchronous_cache_refuses_to_block_a_running_loop(server: PrivateServer, namespace: str) -> None:
    """It says what to do instead."""
    facade = sync.Cache(Cache(settings=CacheSettings(url=server.url, namespace=namespace)))

    async def inside() -> None:
        facade.get("k")

    with pytest.raises(RuntimeError, match="await the asynchronous cache"):
        asyncio.run(inside())
    assert facade.get("k") is None
    facade.close()


def test_threads_share_one_load_and_run_it_themselves(server: PrivateServer, namespace: str) -> None:
    """Thirty-two threads, one cold key: one load, in one of those threads."""
    import threading  # noqa: PLC0415 - only here

    facade = sync.Cache(Cache(settings=CacheSettings(url=server.url, namespace=namespace)))
    ran: list[str] = []
    gate = threading.Event()

    @facade.view("threads:{n}", ttl="1m")
    def value(n: int) -> int:
        ran.append(threading.current_thread().name)
        gate.wait(20)
        return n

    results: list[int] = []
    threads = [threading.Thread(target=lambda: results.append(value(1)), name=f"caller-{n}") for n in range(32)]
    for thread in threads:
        thread.start()
    gate.set()
    for thread in threads:
        thread.join()
    assert results == [1] * 32
    assert len(ran) == 1
    assert ran[0].startswith("caller-")
    facade.close()


async def test_a_memory_cache_obeys_the_same_rules() -> None:
    """No server: views, tags, prefixes and invalidation work, and it says so once."""
    loads = 0
    async with Cache.memory() as cache:

        @cache.view("alone:{n}", ttl="1m", tags=["t"])
        async def value(n: int) -> int:
            nonlocal loads
            loads += 1
            return loads

        assert [await value(1), await value(1)] == [1, 1]
        await cache.invalidate(tags=["t"])
        assert await value(1) == 2
        with pytest.raises(ConfigurationError, match="no connection"):
            _ = cache.client


def test_bad_settings_are_all_listed_at_once() -> None:
    """Every variable that cannot work is named, with the fix."""
    with pytest.raises(ConfigurationError) as refused:
        CacheSettings.from_environment(
            {
                "REDIS_URL": "http://x",
                "CACHE_DEFAULT_TTL": "soon",
                "CACHE_ENABLED": "perhaps",
                "CACHE_MAX_MEMORY_ENTRIES": "-5",
                "CACHE_NAMESPACE": "a b",
            }
        )
    for name in ("REDIS_URL", "CACHE_DEFAULT_TTL", "CACHE_ENABLED", "CACHE_MAX_MEMORY_ENTRIES", "CACHE_NAMESPACE"):
        assert name in str(refused.value)


async def test_a_cluster_serves_views_tags_and_one_load() -> None:
    """Three nodes: entries are spread, the ledger stays in one slot, everything holds."""
    with PrivateCluster.start() as nodes:
        loads = 0
        async with Cache(nodes.url) as here, Cache(nodes.url) as there:
            views = []
            for cache in (here, there):

                @cache.view("spread:{n}", ttl="1m", tags=["all"])
                async def value(n: int) -> int:
                    nonlocal loads
                    loads += 1
                    return n

                views.append(value)
            mine, other = views
            assert await asyncio.gather(*[mine(n) for n in range(50)]) == list(range(50))
            assert await asyncio.gather(*[other(n) for n in range(50)]) == list(range(50))
            assert loads == 50
            assert sum(1 for server in nodes.nodes if server.ask("DBSIZE")) == 3
            clock = await here.invalidate(tags=["all"])
            await caught_up(there, clock)
            assert await asyncio.gather(*[other(n) for n in range(50)]) == list(range(50))
            assert loads == 100


async def test_a_misspelt_variable_is_told_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An application hears of it where it reads its environment, whatever the number of its caches."""
    monkeypatch.setenv("NEVER_CACHED", "email")
    monkeypatch.setenv("REDIS_ENABLED", "false")
    for _ in range(2):
        async with Cache.from_env():
            pass
    told = [record.getMessage() for record in caplog.records if "NEVER_CACHED" in record.getMessage()]
    assert told == ["NEVER_CACHED: is not a setting; did you mean NEVER_CACHE?"]
