"""The status of `make run`, drawn on terminals of common sizes."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import socket
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from cachebus import Cache
from cachebus.testing.server import PrivateServer
from examples import run
from examples.figures import Figures
from examples.processes import PATIENCE_S, Process, Site
from examples.run import System
from examples.screen import Screen
from tests.support.waiting import until


def filled() -> Figures:
    """Figures of a system that has run for a while: wide numbers, ten jobs."""
    figures = Figures()
    figures.fresh.extend([12.0, 14.0, 1_300.0])
    figures.elsewhere.extend([11.5, 16.0])
    figures.broadcasts = 1_234_567
    figures.apps["a"] = {"reads": 12_345_678, "l1": 11_000_000, "l2": 345_678, "loads": 1_000_000, "lag_ms": 120.4}
    figures.apps["a"] |= {"published": 1_234_567, "plain": 123_456, "outbox": 12_345, "missing": 0, "stale": 0}
    jobs = [
        SimpleNamespace(name=f"schedules.portfolios.active_portfolios_{n}", state="claimed", next_us=n * 9_000_000)
        for n in range(10)
    ]
    for job in jobs:
        job.progress = "portfolio:{user_id}:summary:{cost_basis} 146/146 (0 loaded, 146 fresh)"
    backlog = SimpleNamespace(shards=[SimpleNamespace(waiting=0)], refreshes=0, dead_letters=0)
    figures.stats = SimpleNamespace(workers=[SimpleNamespace(state="ready")], backlog=backlog, jobs=jobs)
    return figures


@pytest.mark.parametrize(("width", "height"), [(80, 24), (80, 50), (120, 40), (200, 60)])
def test_it_fits_the_terminal(width: int, height: int) -> None:
    """No line is wider than the terminal nor cut in its figures, and there are no more lines than fit."""
    written = io.StringIO()
    console = Console(file=written, width=width, height=height, force_terminal=True, color_system=None)
    screen = Screen(filled(), console)
    screen.links = [(what, "http://localhost:65535/#user=7") for what in ("dashboard", "live page", "jobs")]
    console.print(screen.render())
    lines = written.getvalue().rstrip("\n").split("\n")
    assert max(len(line.rstrip()) for line in lines) <= min(width, 80)
    assert len(lines) < height
    text = "\n".join(lines)
    for figure in ("1,234,567 followed", "0 missing", "0 dead letters", "p95 1,300 ms", "hit rate 91.9%"):
        assert figure in text
    assert "Ctrl-C stops everything" in text
    assert "claimed" in text


def test_a_log_gets_plain_lines() -> None:
    """Where there is no terminal, one line has the figures, without a control character."""
    written = io.StringIO()
    screen = Screen(filled(), Console(file=written, width=80, highlight=False))
    screen.update()
    assert "hit rate 91.9%" in written.getvalue()
    assert "\x1b" not in written.getvalue()


ANSWERING = """
import os, socket, sys
while True:
    caller, _ = socket.socket(fileno=os.dup(int(os.environ["LISTEN_FD"]))).accept()
    caller.recv(1000)
    caller.sendall(b"HTTP/1.0 200 OK\\r\\n\\r\\n" + sys.argv[1].encode())
    caller.close()
"""


async def test_two_systems_that_start_together_have_ports_of_their_own() -> None:
    """Both would like the same port: each is handed one that nobody else can take, and its link leads to itself."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        wanted = free.getsockname()[1]
    said: list[str] = []
    sites = [Site(name, wanted, ("-c", ANSWERING, name), {}, said.append) for name in ("one", "other")]
    try:
        for site in sites:
            assert await site.answers()
            reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
            writer.write(b"GET / HTTP/1.0\r\n\r\n")
            assert (await reader.read()).endswith(site.name.encode())
            writer.close()
        assert sites[0].port == wanted != sites[1].port
        assert [site.restarts for site in sites] == [0, 0]
    finally:
        for site in sites:
            site.kill()
            await site.stop()


async def test_a_process_that_ends_by_itself_is_named() -> None:
    """It is started again, and the board says where to look for the reason."""
    said: list[str] = []
    process = Process("page", ("-c", "raise SystemExit(3)"), {}, lambda _: None, said.append)
    try:
        await until(lambda: said, "the word")
    finally:
        await process.stop()
    assert said[0].startswith("page ended with exit code 3; restarting.")


async def test_a_second_ctrl_c_kills(
    server: PrivateServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The first one says what it stops, and how to end what does not stop; asked twice, everything is gone."""
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('{}', flush=True); time.sleep(99)"
    listening = asyncio.Event()
    systems: list[System] = []

    class Deaf(System):
        def __init__(self, url: str, screen: Screen) -> None:
            self._screen = screen
            self.worker = Process("worker", ("-c", deaf), {}, lambda _: listening.set())  # type: ignore[assignment]
            systems.append(self)

        @property
        def processes(self) -> list[Process]:
            return [self.worker]

        async def announce(self, screen: Screen, cache: Cache) -> None:
            """Nothing listens."""

        async def stop(self) -> int:
            return await self._stop(self.worker)

    async def nothing(*_: object) -> None:
        """Neither a database nor figures."""

    for name, value in (("System", Deaf), ("set_up", nothing), ("watch", nothing)):
        monkeypatch.setattr(run, name, value)
    monkeypatch.setenv("REDIS_URL", server.url)
    monkeypatch.chdir(tmp_path)
    running = asyncio.create_task(run.run(None))
    await listening.wait()
    said = ""
    for expected in ("stopping     applications, then the worker once it is done; Ctrl-C again kills", "killing"):
        os.kill(os.getpid(), signal.SIGINT)

        def heard(text: str = expected) -> bool:
            nonlocal said
            said += capsys.readouterr().out
            return text in said

        await until(heard, "the answer")
    async with asyncio.timeout(PATIENCE_S / 2):  # sooner than patience would have killed it
        assert await running == 0
    said += capsys.readouterr().out
    assert not systems[0].worker.alive
    assert f"stopped      worker, exit code {-signal.SIGKILL}" in said
