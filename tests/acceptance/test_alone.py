"""A worker without Redis: it handles what is published in its own process, and runs its schedules."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.worker_program import WorkerProcess, until

APPLICATION = """
from pathlib import Path

from cachebus import Cache, Invalidate, Bus, every, on

cache = Cache.from_env()
bus = Bus(cache)


@cache.view("answer:{n}", ttl="1h")
async def answer(n: int) -> int:
    return n


@on("ticks", dict[str, int])
async def ticked(event: dict[str, int]):
    with Path("ticked").open("a") as file:
        file.write(f"{event['n']}\\n")
    return Invalidate(keys="answer:1")


@every("1s")
async def ticks() -> None:
    await bus.publish("ticks", {"n": await answer(1)})
"""


@pytest.fixture
def alone(tmp_path: Path) -> dict[str, str]:
    """The environment of an application without a server, in a folder of its own."""
    (tmp_path / "alone.py").write_text(APPLICATION, encoding="utf-8")
    return {
        "REDIS_ENABLED": "false",
        "CACHE": "alone:cache",
        "HANDLERS": "alone",
        "SCHEDULES": "alone",
        "DATA_DIR": str(tmp_path / "data"),
    }


def test_events_are_handled_and_jobs_fire(alone: dict[str, str], tmp_path: Path) -> None:
    """A job publishes, a handler hears it; SIGTERM ends all of it with 0."""
    with WorkerProcess(alone, cwd=tmp_path) as worker:
        worker.said("REDIS_ENABLED=false: this worker handles the events and schedules of its own process alone")
        worker.said("worker started")
        until(lambda: (tmp_path / "ticked").exists() and (tmp_path / "ticked").read_text() >= "1\n1\n", "two ticks")
        assert worker.stop() == 0
