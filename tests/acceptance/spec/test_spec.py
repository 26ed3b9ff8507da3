"""TradeSense's Redis caching strategy, as it is written: its blocks run, and do what they say."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cachebus.redis.keyspace import Names
from cachebus.testing.server import PrivateServer
from tests.acceptance.spec.program import BLOCKS
from tests.support.worker_program import ROOT

DEADLINE_S = 120


def program(mode: str, environment: dict[str, str], folder: Path) -> dict[str, Any]:
    """Run the strategy's blocks as a program of their own; returns what it says."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.acceptance.spec.program", mode],
        env={"PYTHONPATH": str(ROOT), **environment},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


@pytest.fixture(params=["sync", "async"])
def told(request: pytest.FixtureRequest, server: PrivateServer, namespace: str, tmp_path: Path) -> dict[str, Any]:
    """What a program says that has run every block: at its top, or inside a running event loop."""
    return program(request.param, {"REDIS_URL": server.url, "CACHE_NAMESPACE": namespace}, tmp_path)


def test_every_block_runs_and_does_what_it_says(told: dict[str, Any]) -> None:
    """All eleven, pasted behind one import, from code with and without an event loop."""
    assert len(BLOCKS) == 11
    assert told["failed"] == {}
    # Core: set, get, and the pattern makes it unreadable.
    assert (told["price"], told["price afterwards"]) == (45000, None)
    # Decorators: one calculation, until the user's analytics are invalidated; another user gets another's.
    seen = told["seen"]
    assert seen["first"] == seen["cached"] == {"user_id": 123, "calculation": 1}
    assert seen["invalidated"] == {"user_id": 123, "calculation": 2}
    assert seen["other user"] == 7
    # The query's rows read like the mapped objects, and are the database's again after an import.
    assert seen["trades"] == [[1, "S1", 123], [2, "S2", 123]]
    assert (seen["before the import"], seen["not yet known"], seen["after the import"]) == (1, 1, 2)
    # Sessions end all at once; the limit counts; the lock's body ran; the subscriber heard.
    assert (told["session"], told["session afterwards"]) == ([123, "192.168.1.1"], "None")
    assert told["limit"] == [True, 4]
    assert told["calls"]["import"] == 1
    assert told["heard"] == [{"user_id": 123, "action": "new_trade"}]
    assert told["info"] == "ok"
    assert {"hits", "misses", "hit_rate", "evictions", "entries"} <= set(told["stats"])


def test_the_feature_flag_switches_caching_off(server: PrivateServer, namespace: str, tmp_path: Path) -> None:
    """`CACHE_ENABLED=false`: every call loads, nothing is stored, all blocks run."""
    environment = {"REDIS_URL": server.url, "CACHE_NAMESPACE": namespace, "CACHE_ENABLED": "false"}
    told = program("sync", environment, tmp_path)
    assert told["failed"] == {}
    assert told["seen"]["cached"]["calculation"] == 2
    assert told["price"] is None
    assert server.ask("KEYS", f"{Names(namespace).entries}*") == []


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_without_redis_every_block_runs_too(mode: str, tmp_path: Path) -> None:
    """`REDIS_ENABLED=false`: in this process alone, for development; the same answers, and nothing is left running."""
    told = program(mode, {"REDIS_ENABLED": "false"}, tmp_path)
    assert told["failed"] == {}
    assert told["seen"]["cached"]["calculation"] == 1
    assert (told["price"], told["price afterwards"]) == (45000, None)
    assert told["session"] == [123, "192.168.1.1"]
    assert told["limit"] == [True, 4]
    assert told["info"] == "disabled"
