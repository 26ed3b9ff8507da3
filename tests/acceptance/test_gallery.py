"""The examples of `examples/`, each run as its reader runs it: as processes, against a real server."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest
from celery import Celery

from cachebus.redis.embedded.loopback import free_port
from cachebus.testing.server import PrivateServer
from tests.support.lacking import program
from tests.support.worker_program import ROOT, WorkerProcess, until

CACHEBUS = (sys.executable, "-m", "cachebus.worker")


@pytest.fixture
def environment(server: PrivateServer, namespace: str, tmp_path: Path) -> dict[str, str]:
    """What the programs of one example share."""
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": f"{ROOT}:{tmp_path}",
        "REDIS_URL": server.url,
        "CACHE_NAMESPACE": namespace,
        "SHOP_FILE": str(tmp_path / "shop.db"),
    }


@contextmanager
def process(environment: dict[str, str], *command: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program of an example for as long as the block lasts."""
    started = subprocess.Popen([sys.executable, *command], cwd=ROOT, env=environment, start_new_session=True)
    try:
        yield started
    finally:
        started.terminate()
        try:
            started.wait(30)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(started.pid, signal.SIGKILL)
            started.wait()


@contextmanager
def web(environment: dict[str, str], port: int, *command: str) -> Iterator[httpx.Client]:
    """Run a web program; yields a browser once it answers."""
    with process(environment, *command), httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as browser:
        until(lambda: answers(browser), "the program")
        yield browser


def answers(browser: httpx.Client) -> bool:
    """Return whether the program listens."""
    try:
        return browser.get("/").status_code < 500
    except httpx.TransportError:
        return False


def test_the_script(environment: dict[str, str]) -> None:
    """The first run loads twice; the second finds what the first left, until it invalidates."""
    script = [sys.executable, "-m", "examples.script"]
    runs = [subprocess.check_output(script, cwd=ROOT, env=environment, text=True).splitlines() for _ in range(2)]
    changed = "after: ['tea', 'milk']"
    assert runs[0] == ["loading 7", "before: ['tea']", "loading 7", changed]
    assert runs[1] == ["before: ['tea', 'milk']", "loading 7", changed]


def test_flask(environment: dict[str, str]) -> None:
    """A change through one request is in the page of the next."""
    port = free_port()
    with web(environment, port, "-m", "flask", "--app", "examples.flask_app", "run", "--port", str(port)) as browser:
        assert browser.get("/products/1").json() == browser.get("/products/1").json() == {"price": 9.5}
        assert browser.put("/products/1/12.5").status_code == 204
        assert browser.get("/products/1").json() == {"price": 12.5}


def test_django_in_two_processes(environment: dict[str, str]) -> None:
    """What one writes the other shows once it is committed; a session is one in both."""
    ports = (free_port(), free_port())
    command = ("-m", "examples.django_app", "runserver", "--noreload")
    with (
        web(environment, ports[0], *command, str(ports[0])) as here,
        web(environment, ports[1], *command, str(ports[1])) as there,
    ):
        first = here.get("/ann")
        assert first.json() == {"notes": [], "looks": 1}
        there.cookies.update(first.cookies)
        assert there.get("/ann").json() == {"notes": [], "looks": 2}
        assert here.get("/ann/hello").json() == {"notes": ["hello"]}
        until(lambda: there.get("/ann").json()["notes"] == ["hello"], "the note in the other process")


def test_litestar(environment: dict[str, str]) -> None:
    """A change is seen by whoever hands its clock back, and by everybody else."""
    port = free_port()
    command = ("-m", "uvicorn", "examples.litestar_app:app", "--port", str(port), "--log-level", "warning")
    with web(environment, port, *command) as browser:
        assert browser.get("/stock/1").json() == {"stock": 5}
        changed = browser.put("/stock/1/3")
        assert changed.status_code == 204, changed.text
        after = {"Fresh-After": changed.headers["Fresh-After"]}
        assert browser.get("/stock/1", headers=after).json() == {"stock": 3}
        assert browser.get("/stock/1").json() == {"stock": 3}


def test_fastapi_with_pydantic(environment: dict[str, str]) -> None:
    """A page that has the answer gets a 304 until a price changes; its names are the models' own."""
    port = free_port()
    command = ("-m", "uvicorn", "examples.pydantic_app:app", "--port", str(port), "--log-level", "warning")
    with web(environment, port, *command) as browser:
        first = browser.get("/products")
        assert first.json()[0] == {"productId": 1, "name": "tea", "price": 4.5}
        known = {"If-None-Match": first.headers["ETag"]}
        assert browser.get("/products", headers=known).status_code == 304
        changed = browser.put("/products/1/price", params={"price": 5})
        assert changed.status_code == 204, changed.text
        after = browser.get("/products", headers={**known, "Fresh-After": changed.headers["Fresh-After"]})
        assert (after.status_code, after.json()[0]["price"]) == (200, 5)
        assert browser.put("/products/9/price", params={"price": 5}).status_code == 404


HANDLERS = """
from typing import Any
from cachebus import Broadcast, on

@on("orders:*", dict)
def told(event: dict[str, Any]):
    yield Broadcast(f"user:{event['user_id']}", "order", event)
"""


@contextmanager
def worker(environment: dict[str, str], folder: Path) -> Iterator[None]:
    """Run a worker that broadcasts what it hears."""
    (folder / "app.py").write_text("from cachebus import Cache\ncache = Cache.from_env()\n" + HANDLERS)
    named = {"CACHE": "app:cache", "HANDLERS": "app", "SCHEDULES": "app"}
    with WorkerProcess({**environment, **named}, "worker", cwd=folder, program=CACHEBUS) as running:
        running.said("worker ready")
        yield
        assert running.stop() == 0


def tail(environment: dict[str, str], folder: Path) -> str:
    """What browsers were sent."""
    command = [*CACHEBUS, "tail", "--last", "5", "--json"]
    with subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True) as tailing:
        assert tailing.stdout is not None
        line = tailing.stdout.readline()
        tailing.terminate()
    return line


def test_a_celery_task_publishes_from_a_forked_process(environment: dict[str, str], tmp_path: Path) -> None:
    """The pool forks after the cache was made; its process connects, and the event becomes a broadcast."""
    command = ("-m", "celery", "-A", "examples.celery_app", "worker", "--concurrency", "1", "--loglevel", "error")
    with worker(environment, tmp_path), process(environment, *command) as pool:
        redis = environment["REDIS_URL"]
        with Celery("client", broker=redis, backend=redis) as client:
            sent = client.send_task("examples.celery_app.import_orders", (7, 3))
            answer = sent.get(timeout=30, interval=0.01)
        assert answer["count"] == 3
        assert answer["pid"] != pool.pid
        assert '"count":3' in tail(environment, tmp_path).replace(" ", "")


def test_node_publishes(environment: dict[str, str], tmp_path: Path) -> None:
    """A program with nothing of ours: one PUBLISH, and the worker has handled it."""
    publish = [
        program("node"),
        str(ROOT / "examples/node_publisher/publish.mjs"),
        "orders:placed",
        '{"user_id": 7, "item": "té"}',
    ]
    with worker(environment, tmp_path):
        said = subprocess.run(publish, env=environment, capture_output=True, text=True, timeout=30, check=True).stdout
        assert said == "heard by 1\n"
        assert '"item":"té"' in tail(environment, tmp_path).replace(" ", "")
