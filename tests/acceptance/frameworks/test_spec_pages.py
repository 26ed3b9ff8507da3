"""The page for programs without an event loop: each of its blocks is pasted into a file and used as that program is."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cachebus.testing.server import PrivateServer
from tests.support.worker_program import ROOT

PAGE = ROOT / "docs" / "howto" / "use-from-flask-django-celery.md"
USE = {
    "flask": """
client = app.test_client()
assert client.get("/portfolio/7").json == client.get("/portfolio/7").json == {"value": 42.0}
assert cache.stats().totals.l1_hits == 1
assert client.post("/portfolio/7/trades").status_code == 204
assert client.get("/portfolio/7").json == {"value": 42.0}
assert cache.stats().totals.loads == 2
""",
    "FlaskCache": """
client = app.test_client()
assert client.get("/products/7").json == client.get("/products/7").json == {"product": 7}
assert cache.stats().totals.loads == 1
assert (price(7), price(7)) == (9.5, 9.5)
cache.delete_memoized(price)
""",
    "django": """
import sys
from django.conf import settings
from django.test import Client
settings.configure(ROOT_URLCONF="__main__", ALLOWED_HOSTS=["testserver"])
assert Client().get("/profile/7").json() == Client().get("/profile/7").json() == {"name": "user 7"}
assert cache.stats().totals.loads == 1
""",
    "celery": """
app.conf.task_always_eager = True
before = cache.run(cache.cache.connected()).freshness.seen
import_trades.delay(7).get()
assert cache.cache.reader.freshness.seen > before
""",
    "fastapi": """
from fastapi.testclient import TestClient
assert TestClient(app).get("/quotes/AAPL").json() == TestClient(app).get("/quotes/AAPL").json() == [1.0, 2.0]
assert cache.stats().totals.loads == 1
async def endpoint():
    return cache.get("anything")
import asyncio
try:
    asyncio.run(endpoint())
except RuntimeError as refused:
    assert "would block the running event loop" in str(refused)
else:
    raise AssertionError("it blocked the loop")
""",
    "RateLimiter": """
assert [export(7) for _ in range(6)] == ["rows"] * 5 + ["later"]
session = sessions.get(sessions.create(7))
assert session is not None and session.user_id == 7
assert pubsub.publish("news", "nobody listens") == 0
""",
}


@pytest.mark.parametrize("name", list(USE))
def test_a_block_is_a_program(name: str, server: PrivateServer, namespace: str, tmp_path: Path) -> None:
    """It caches, and what it says of itself holds."""
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) == len(USE)
    program = tmp_path / "program.py"
    program.write_text(next(block for block in blocks if f" {name}" in block) + USE[name] + "\ncache.close()\n")
    done = subprocess.run(
        [sys.executable, str(program)],
        env={**os.environ, "REDIS_URL": server.url, "CACHE_NAMESPACE": namespace, "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
