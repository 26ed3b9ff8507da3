"""The face: what `cachebus` offers, and what it costs to begin."""

from __future__ import annotations

import inspect
import subprocess
import sys

import cachebus

PROGRAM = """
import asyncio, sys
from cachebus import Cache

cache = Cache.memory()

@cache.view("row:{n}", ttl="1m")
async def row(n: int) -> int:
    return n

async def main() -> None:
    async with cache:
        assert await row(7) == 7
        assert await row(7) == 7

asyncio.run(main())
print(*sys.modules)
"""


def test_a_cache_in_memory_loads_neither_driver_nor_bus() -> None:
    """A first read imports what it needs and nothing else: half of the start of a small program would be the driver."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, timeout=60)
    loaded = set(done.stdout.split())
    assert "cachebus.cache.view" in loaded
    for name in ("redis", "hiredis", "anyio", "apscheduler", "sqlalchemy", "importlib.resources"):
        assert name not in loaded
    assert [name for name in loaded if name.startswith(("cachebus.bus", "cachebus.schedules", "cachebus.worker"))] == []


def test_nothing_is_loaded_by_the_import_itself() -> None:
    """Each name loads its own room when it is first used."""
    program = "import sys, cachebus; print(*[name for name in sys.modules if name.startswith('cachebus')])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == ["cachebus"]


def test_every_name_says_what_it_is() -> None:
    """Each is what its home defines, and has a docstring of its own."""
    for name in cachebus.__all__:
        found = getattr(cachebus, name)
        if isinstance(found, type) or inspect.isfunction(found):
            assert found.__doc__, name
