"""The strategy's names in the programs people have: Flask, Django, FastAPI and Celery, as real processes.

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
from harness import DEADLINE_S, ROOT, until

from cachebus.loopback import free_port
from cachebus.private_server import PrivateServer

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

    def loads(self, user_id: int) -> int:
        """How often the database was asked for this figure."""
        return [line.split()[0] for line in (self.folder / "loads").read_text().splitlines()].count(str(user_id))

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
        before = program.loads(2)
        with ThreadPoolExecutor(32) as pool:
            replies = list(pool.map(lambda _: client.get("/figures/2"), range(64)))
        assert {reply.json()["figure"] for reply in replies} == {10}
        assert program.loads(2) - before == 1
        for value in (11, 12, 13):
            changed = client.post(f"/figures/2/{value}").json()
            assert changed["figure"] == value
            assert {reply["figure"] for reply in settled(client, program, value)} == {value}
        if name == "flask":  # gunicorn's first process has loaded it, before it forked
            assert {reply["figure"] for reply in both(client, program, "/figures/1")} == {10}
            assert program.loads(1) == 1
        if name == "fastapi":
            assert client.get("/loop/figures/2").json()["figure"] == 13
            assert client.get("/loop/figures/1").json()["figure"] == 10


def settled(client: httpx.Client, program: Program, value: int) -> list[dict[str, Any]]:
    """Wait until both processes have heard of the change; returns an answer of each."""
    answers: list[dict[str, Any]] = []

    def heard() -> bool:
        answers[:] = both(client, program, "/figures/2")
        return {answer["figure"] for answer in answers} == {value}

    until(heard, f"{value} from both processes")
    return answers


def test_a_celery_worker_caches_and_is_never_stale(tmp_path: Path, environment: dict[str, str]) -> None:
    """Two prefork processes share one load; after a change through one of them both have the new figure."""
    command = ("-m", "celery", "-A", "celery_program", "worker", "--concurrency", "2", "--loglevel", "info")
    with Program(tmp_path, environment, *command, "--without-gossip", "--without-mingle") as program:
        until(lambda: " ready." in program.text, "the worker")
        queue = tmp_path / "queue"
        folders = {"data_folder_in": str(queue / "messages"), "data_folder_out": str(queue / "messages")}
        with Celery("client", broker="filesystem://", backend=f"file://{queue}/processed") as client:
            client.conf.broker_transport_options = {**folders, "control_folder": str(queue / "control")}

            def tasks(name: str, *arguments: tuple[int, ...]) -> list[dict[str, int]]:
                sent: list[AsyncResult[Any]] = [
                    client.send_task(f"celery_program.{name}", given) for given in arguments
                ]
                return [result.get(timeout=DEADLINE_S, interval=0.01) for result in sent]

            def everywhere(value: int) -> bool:
                answers = tasks("read", *[(2,)] * 8)
                return {answer["figure"] for answer in answers} == {value} and len({a["pid"] for a in answers}) == 2

            until(lambda: everywhere(10), "an answer of both processes")
            assert program.loads(2) == 1
            for value in (11, 12):
                assert tasks("write", (2, value))[0]["figure"] == value
                until(lambda value=value: everywhere(value), f"{value} from both processes")
