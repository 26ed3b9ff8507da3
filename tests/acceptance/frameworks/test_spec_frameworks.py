"""The facade and the strategy's names in programs people have: Flask, Django, FastAPI and Celery, as real processes.

Each has two processes. What one caches, the other gets; what one invalidates, neither serves again; and 32 threads
that ask at once cause one load.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import httpx
import pytest
from celery import Celery
from celery.result import AsyncResult

from cachebus.redis.embedded.loopback import free_port
from cachebus.testing.server import PrivateServer
from tests.support.worker_program import DEADLINE_S, ROOT, until

HERE = Path(__file__).parent


class Program:
    """A program's processes, and the database that they share."""

    def __init__(self, folder: Path, environment: dict[str, str], *command: str) -> None:
        self.folder = folder
        for user_id in (1, 2, 3):
            (folder / str(user_id)).write_text("10")
        (folder / "loads").touch()
        self.environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": f"{ROOT}:{HERE}",
            "COUNTED_FOLDER": str(folder),
            **environment,
        }
        self._command = command
        self.text = ""

    def __enter__(self) -> Self:
        self.process = subprocess.Popen(
            [sys.executable, *self._command],
            cwd=HERE,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        return self

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.text += line

    def loads(self, user_id: int) -> dict[str, int]:
        """How often the database was asked for this figure, by whom."""
        notes = (self.folder / "loads").read_text().splitlines()
        return {what: notes.count(f"{what} {user_id}") for what in ("facade", "strategy")}

    def __exit__(self, *_: object) -> None:
        """Ask it to end as a platform does; whatever is left ends too."""
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(DEADLINE_S)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self._reader.join()
            assert self.process.stdout is not None
            self.process.stdout.close()


@pytest.fixture
def environment(server: PrivateServer, namespace: str) -> dict[str, str]:
    """What a platform sets."""
    return {"REDIS_URL": server.url, "CACHE_NAMESPACE": namespace}


GUNICORN = ("-m", "gunicorn", "--workers", "2", "--threads", "16", "--no-control-socket")
UVICORN = ("-m", "uvicorn", "--workers", "2", "--host", "127.0.0.1")
WEB = {
    "flask": lambda port: (*GUNICORN, "--preload", "--bind", f"127.0.0.1:{port}", "flask_program:app"),
    "django": lambda port: (*GUNICORN, "--bind", f"127.0.0.1:{port}", "django_program:app"),
    "fastapi": lambda port: (*UVICORN, "--port", str(port), "fastapi_program:app"),
}


@contextmanager
def web(name: str, folder: Path, environment: dict[str, str]) -> Iterator[tuple[Program, httpx.Client]]:
    """Run a web program; yields it once both of its processes answer, and a client without kept connections."""
    port = free_port()
    limits = httpx.Limits(max_keepalive_connections=0)  # each request may reach either process
    client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=DEADLINE_S, limits=limits, trust_env=False)
    with Program(folder, environment, *WEB[name](port)) as program, client:
        both(client, program, "/figures/3")
        yield program, client


def both(client: httpx.Client, program: Program, path: str) -> list[dict[str, Any]]:
    """Ask until two processes have answered; returns one answer of each."""
    answers: dict[int, dict[str, Any]] = {}

    def asked() -> bool:
        assert program.process.poll() is None, program.text
        try:
            with ThreadPoolExecutor(8) as pool:
                replies = list(pool.map(lambda _: client.get(path), range(8)))
        except httpx.TransportError:
            return False
        for reply in replies:
            assert reply.status_code == 200, program.text
            answers[reply.json()["pid"]] = reply.json()
        return len(answers) == 2

    until(asked, f"two processes of the program; it said:\n{program.text}")
    return list(answers.values())


@pytest.mark.parametrize("name", list(WEB))
def test_a_web_program_caches_and_is_never_stale(name: str, tmp_path: Path, environment: dict[str, str]) -> None:
    """One load for 32 threads and two processes; after a change through one of them, both have the new figure."""
    with web(name, tmp_path, environment) as (program, client):
        with ThreadPoolExecutor(32) as pool:
            replies = list(pool.map(lambda _: client.get("/figures/2"), range(64)))
        assert {figures(reply.json()) for reply in replies} == {(10, 10)}
        assert program.loads(2) == {"facade": 1, "strategy": 1}
        for value in (11, 12, 13):
            changed = client.post(f"/figures/2/{value}").json()
            assert figures(changed) == (value, value)
            settled(client, program, value)
        if name == "flask":  # gunicorn's first process has loaded it, before it forked
            assert {figures(reply) for reply in both(client, program, "/figures/1")} == {(10, 10)}
            assert program.loads(1) == {"facade": 1, "strategy": 1}
        if name == "fastapi":
            in_the_loop = client.get("/loop/figures/2").json()
            assert in_the_loop["strategy"] == 13
            assert "would block the running event loop" in in_the_loop["refused"]
            assert client.get("/loop/figures/1").json()["strategy"] == 10


def figures(answer: dict[str, Any]) -> tuple[int, int]:
    """Return the figure by the facade and by the strategy's name."""
    return answer["facade"], answer["strategy"]


def settled(client: httpx.Client, program: Program, value: int) -> None:
    """Wait until both processes have heard of the change."""
    until(
        lambda: {figures(answer) for answer in both(client, program, "/figures/2")} == {(value, value)},
        f"{value} from both processes",
    )


def test_a_celery_worker_caches_and_is_never_stale(tmp_path: Path, environment: dict[str, str]) -> None:
    """Two prefork processes share one load; after a change through one of them both have the new figure."""
    command = ("-m", "celery", "-A", "celery_program", "worker", "--concurrency", "2", "--loglevel", "info")
    broker = environment["REDIS_URL"].removesuffix("/0") + "/1"
    environment["BROKER_URL"] = broker
    with Program(tmp_path, environment, *command, "--without-gossip", "--without-mingle") as program:
        until(lambda: " ready." in program.text, "the worker")
        with Celery("client", broker=broker, backend=broker) as client:

            def tasks(name: str, *arguments: tuple[int, ...]) -> list[dict[str, int]]:
                sent: list[AsyncResult[Any]] = [
                    client.send_task(f"celery_program.{name}", given) for given in arguments
                ]
                return [result.get(timeout=DEADLINE_S, interval=0.01) for result in sent]

            def everywhere(value: int) -> bool:
                answers = tasks("read", *[(2,)] * 8)
                everyone = len({answer["pid"] for answer in answers}) == 2
                return everyone and {figures(answer) for answer in answers} == {(value, value)}

            until(lambda: everywhere(10), "an answer of both processes")
            assert program.loads(2) == {"facade": 1, "strategy": 1}
            for value in (11, 12):
                assert figures(tasks("write", (2, value))[0]) == (value, value)
                until(lambda value=value: everywhere(value), f"{value} from both processes")
