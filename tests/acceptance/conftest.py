"""A private Valkey for these tests, and the environment of a worker that uses it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cachebus.testing.server import PrivateServer


@pytest.fixture
def redis() -> Iterator[PrivateServer]:
    """A server of this test's own: it may be killed and restarted."""
    with PrivateServer.start() as server:
        yield server


@pytest.fixture
def environment(redis: PrivateServer, tmp_path: Path) -> dict[str, str]:
    """What a platform sets for a worker of the shop."""
    return {
        "REDIS_URL": redis.url,
        "RELEASE": "v42",
        "DATA_DIR": str(tmp_path / "data"),
        "HANDLERS": "shop.orders",
        "SCHEDULES": "shop.jobs",
        "CACHE": "shop.views:cache",
        "SHOP_FOLDER": str(tmp_path),
    }
