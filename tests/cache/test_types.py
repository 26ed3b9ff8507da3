"""Every type of the table comes back equal: from memory, from Redis, and from another process."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from cachebus import Cache, CacheSettings
from cachebus.cache.values.codec import Codec
from cachebus.cache.values.extensions import SelfDescribing
from cachebus.cache.values.never import NeverCached
from cachebus.cache.values.plain_codec import PlainCodec
from cachebus.testing.server import PrivateServer
from tests.support.stored_types import PAGE, TABLE, Stored, page
from tests.support.type_process import declare

ROOT = Path(__file__).parents[2]

EXAMPLES = settings(max_examples=25, deadline=None, database=None, suppress_health_check=list(HealthCheck))


def codec_of(stored: Stored) -> Codec | PlainCodec:
    """Return how a view with this return type writes its values."""
    make = PlainCodec if stored.declared is Any else Codec
    return make(stored.declared, stored.name, NeverCached(["-*"]), SelfDescribing())


@pytest.mark.parametrize("stored", TABLE, ids=lambda stored: stored.name)
def test_a_value_comes_back_equal(stored: Stored) -> None:
    """To whoever loads it and to whoever reads it; of the same class; no matter how often."""
    codec = codec_of(stored)

    @EXAMPLES
    @given(stored.values)
    def comes_back(value: Any) -> None:
        settled, payload = codec.settle(value)
        read = codec.decode(payload)
        for back in (settled, read):
            assert back == value
            assert type(back) is type(value)
        assert codec.settle(read)[1] == payload or isinstance(value, set | frozenset | dict)

    comes_back()


async def test_a_value_comes_back_equal_from_another_process(server: PrivateServer, namespace: str) -> None:
    """It reads one of each type from Redis and stores it again, and here that is read from Redis."""
    values = [an_example(stored) for stored in TABLE]
    settings_here = CacheSettings(url=server.url, namespace=namespace)
    async with Cache(settings=settings_here, never=["-*"]) as cache:
        for view in declare(cache, "given", values.__getitem__):
            await view()
            assert view.stats.uncacheable == 0, view
    command = [sys.executable, "-m", "tests.support.type_process", server.url, namespace]
    done = await asyncio.to_thread(subprocess.run, command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    async with Cache(settings=settings_here, never=["-*"]) as cache:
        views = declare(cache, "back", lambda at: pytest.fail(f"{TABLE[at].name} was not stored again"))
        for stored, view, value in zip(TABLE, views, values, strict=True):
            for _ in range(2):  # from Redis, from memory
                back = await view()
                assert (back, type(back)) == (value, type(value)), stored.name


def an_example(stored: Stored) -> Any:
    """Return a value of a type, the same in each run."""
    found: list[Any] = []

    @settings(max_examples=8, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(stored.values)
    def collect(value: Any) -> None:
        found.append(value)

    collect()
    return found[-1]


def test_the_page_lists_the_table() -> None:
    """`python -m tests.support.stored_types` was run after the last change; there are 100 types and more."""
    assert len(TABLE) >= 100
    assert PAGE.read_text(encoding="utf-8") == page()
