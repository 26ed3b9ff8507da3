"""This repository's own handlers and schedules, in a real worker, on a real database."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cachebus.testing.server import PrivateServer
from tests.support.worker_program import ROOT, WorkerProcess, ask, until
from tradesense.database import Database
from tradesense.seed import seed

Environment = dict[str, str]


@pytest.fixture
async def tradesense(redis: PrivateServer, tmp_path: Path) -> Environment:
    """The environment of a worker of TradeSense, with a small database."""
    url = f"sqlite:///{tmp_path / 'tradesense.db'}"
    database = Database(url)
    await seed(database, users=10, trades=200)
    await database.close()
    return {"REDIS_URL": redis.url, "DATA_DIR": str(tmp_path / "data"), "DATABASE_URL": url}


@pytest.fixture
def worker(tradesense: Environment) -> Iterator[WorkerProcess]:
    """One worker, ready."""
    with WorkerProcess(tradesense) as worker:
        worker.said("worker started")
        until(lambda: ask(tradesense, "check", "--ready")[0] == 0, "the worker to be ready")
        yield worker


def feed(redis: PrivateServer) -> list[dict[str, Any]]:
    """Return every broadcast, in order."""
    records = redis.ask("XRANGE", "{cachebus}:feed", "-", "+")
    return [json.loads(dict(zip(fields[::2], fields[1::2], strict=True))[b"record"]) for _, fields in records]


READ = """
import asyncio
from tradesense.results import CostBasis
from tradesense.views import cache, portfolio_summary

async def read() -> None:
    async with cache:
        await portfolio_summary(3, CostBasis.FIFO)

asyncio.run(read())
"""


def test_a_trade_is_broadcast_and_the_portfolio_old(
    redis: PrivateServer, worker: WorkerProcess, tradesense: Environment
) -> None:
    """The specification's plain message: the user's topic hears of it, and a portfolio that was read is old."""
    subprocess.run([sys.executable, "-c", READ], cwd=ROOT, env={**os.environ, **tradesense}, check=True)
    assert "state       valid" in ask(tradesense, "inspect", "portfolio:3:summary:fifo")[1]
    redis.ask("PUBLISH", "trade:updates", '{"user_id": 3, "action": "new_trade"}')
    until(lambda: feed(redis), "the broadcast")
    (record,) = feed(redis)
    assert (record["topic"], record["type"]) == ("user:3", "trade.new_trade")
    assert "state       INVALID" in ask(tradesense, "inspect", "portfolio:3:summary:fifo")[1]
    assert worker.stop() == 0


def test_settings_and_bars_are_broadcast(redis: PrivateServer, worker: WorkerProcess, tradesense: Environment) -> None:
    """A change of settings goes to its user, a bar to those who watch the symbol."""
    assert ask(tradesense, "publish", "settings:updates", '{"user_id": 3, "changed": ["grouping"]}')[0] == 0
    assert ask(tradesense, "publish", "market:bars", '{"symbol": "AAPL", "day": "2013-03-01"}')[0] == 0
    until(lambda: len(feed(redis)) == 2, "the broadcasts")
    assert [(record["topic"], record["type"], record["data"]) for record in feed(redis)] == [
        ("user:3", "settings.changed", {"changed": ["grouping"]}),
        ("market:AAPL", "market.bar", {"day": "2013-03-01"}),
    ]


def test_malformed_trades_are_dead_letters_that_name_the_field(
    redis: PrivateServer, worker: WorkerProcess, tradesense: Environment
) -> None:
    """Bad JSON, a wrong type, an unknown action, a missing user: each a letter with its reason; the worker goes on."""
    bad = {
        '{"user_id": 3,': "truncated",
        '{"user_id": "three", "action": "new_trade"}': "`$.user_id`",
        '{"user_id": 3, "action": "eaten"}': "`$.action`",
        '{"action": "new_trade"}': "`user_id`",
        '{"user_id": -3, "action": "new_trade"}': "`$.user_id`",
    }
    for payload in bad:
        redis.ask("PUBLISH", "trade:updates", payload)
    redis.ask("PUBLISH", "trade:updates", '{"user_id": 4, "action": "deleted_trade"}')
    until(lambda: feed(redis), "the good event")
    code, said = ask(tradesense, "letters", "list")
    assert code == 0
    reasons = list(reversed(said.splitlines()[1:]))  # the newest first
    assert len(reasons) == len(bad)
    for expected, line in zip(bad.values(), reasons, strict=True):
        assert expected in line


def test_nothing_about_the_application_is_a_warning(tradesense: Environment) -> None:
    """Every handler, job and view loads, and every tag a handler names reaches a view."""
    code, said = ask(tradesense, "doctor")
    assert code == 0, said
    assert "reaches no view" not in said
    assert "3 handlers" in said
