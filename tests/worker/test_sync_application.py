"""A program that has only a `cachebus.sync.Cache`, such as a Flask application, and the worker that runs its module."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from cachebus.testing.server import PrivateServer
from tests.support.worker_program import ROOT, WorkerProcess, ask, until

APPLICATION = {
    "web.py": '''
import threading
from pathlib import Path

from flask import Flask, current_app, jsonify

from cachebus.integrations.flask import FlaskCache

app = Flask(__name__)
app.config["PRICE"] = Path("price")
cache = FlaskCache(app)
cache.get("used while the module is imported")


def note(what):
    """Say what was loaded, and whether the worker's loop is the only one."""
    loops = [thread.name for thread in threading.enumerate()].count("cachebus loop")
    with Path("loads").open("a") as notes:
        notes.write(f"{what} {loops}\\n")


@cache.view("price:{symbol}", ttl="5m", tags=["market"])
def price(symbol: str) -> int:
    note("price")
    return int(current_app.config["PRICE"].read_text())


@cache.view("portfolio:{user_id}", ttl="5m", tags=["user:{user_id}"])
def portfolio(user_id: int) -> int:
    note(f"portfolio {user_id}")
    return 10 * price("AAPL")


@app.get("/portfolio/<int:user_id>")
def show(user_id: int):
    return jsonify(portfolio(user_id))
''',
    "handlers.py": """
from web import portfolio

from cachebus import Invalidate, Refresh, on


@on("trades", dict)
def traded(event):
    yield Invalidate(tags=[f"user:{event['user_id']}", "market"])
    yield Refresh(portfolio, event["user_id"])
""",
    "schedules.py": """
from web import portfolio

from cachebus import every


@every("1s")
async def first_users(warm):
    await warm(portfolio, range(1, 41), per_second=1000, concurrency=40)
""",
}
CACHEBUS = (sys.executable, "-m", "cachebus.worker")


@pytest.fixture
def application(tmp_path: Path) -> Path:
    """Its folder."""
    for name, text in APPLICATION.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "price").write_text("5")
    (tmp_path / "loads").touch()
    return tmp_path


def test_a_worker_runs_a_program_without_a_loop(application: Path, server: PrivateServer, namespace: str) -> None:
    """It warms and refreshes plain functions that call each other, within the application, in the worker's one loop."""
    environment = {
        "REDIS_URL": server.url,
        "CACHE_NAMESPACE": namespace,
        "CACHE": "web:cache",
        "PYTHONPATH": f"{ROOT}:{application}",
    }

    def loads() -> list[str]:
        return (application / "loads").read_text().splitlines()

    def cached(key: str) -> str:
        code, text = ask(environment, "inspect", key, cwd=application, program=CACHEBUS)
        assert code == 0, text
        return text

    with WorkerProcess(environment, "worker", cwd=application, program=CACHEBUS) as worker:
        worker.said("worker started")
        until(lambda: len(loads()) >= 41, lambda: f"40 portfolios and one price; {loads()}\n{worker.text}")
        assert sorted(set(loads())) == sorted({"price 0", *(f"portfolio {user} 0" for user in range(1, 41))})
        assert loads().count("price 0") == 1
        assert "50" in cached("portfolio:7")
        (application / "price").write_text("6")
        event = '{"user_id": 99}'
        assert ask(environment, "publish", "trades", event, cwd=application, program=CACHEBUS)[0] == 0
        until(lambda: "portfolio 99 0" in loads(), lambda: f"the refresh; {loads()}\n{worker.text}")
        until(lambda: "60" in cached("portfolio:99"), "the refreshed value")
        assert worker.stop() == 0
