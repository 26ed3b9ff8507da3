"""The worker as a process: it refuses a bad environment, says how it is, waits out an outage, and ends when told to."""

from __future__ import annotations

import re
import signal
import socket
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

import pytest

from cachebus.testing.server import PrivateServer
from tests.support.worker_program import APPS, ROOT, WORKER, WorkerProcess, ask, until

Environment = dict[str, str]
GATEWAY = (sys.executable, "-m", "gateway")


def test_a_bad_environment_is_refused_whole(environment: Environment) -> None:
    """Every bad value is listed, the exit code is 2, and no password is among them."""
    bad = {
        "REDIS_URL": "http://u:hunter22@h",
        "PORT": "redis://u:hunter22@h",
        "BUS_SHARDS": "many",
        "LOG_LEVEL": "loud",
    }
    code, said = ask({**environment, **bad})
    assert code == 2
    assert "4 problems" in said
    assert all(f"{name}: " in said for name in bad)
    assert "hunter22" not in said


def test_a_bad_application_is_refused_whole(environment: Environment) -> None:
    """Packages that are not there, or hold no cache, are listed together: exit code 2."""
    code, said = ask({**environment, "HANDLERS": "nowhere,shop.absent", "CACHE": "shop.views:total"})
    assert code == 2
    assert "no module 'nowhere'" in said
    assert "no module 'shop.absent'" in said
    assert "'total' in shop.views is View, not a Cache" in said


def test_refused_credentials_are_said_once_and_end_it(environment: Environment, redis: PrivateServer) -> None:
    """A wrong password is no outage: exit code 2 and which variable to correct, without the password."""
    redis.ask("CONFIG", "SET", "requirepass", "right-password")
    wrong = environment["REDIS_URL"].replace("redis://", "redis://:wrong-password@")
    code, said = ask({**environment, "REDIS_URL": wrong})
    assert code == 2
    assert "REDIS_URL: the server denies access (WRONGPASS" in said
    assert "wrong-password" not in said


@pytest.mark.parametrize("program", [WORKER, GATEWAY], ids=["worker", "gateway"])
def test_a_taken_port_is_refused(environment: Environment, program: Sequence[str]) -> None:
    """A port somebody else has is exit code 2 and one line, not a crash loop."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        code, said = ask({**environment, "HOST": "127.0.0.1", "PORT": port}, program=program)
    assert code == 2
    assert f"PORT: {port} cannot be opened" in said
    assert "Traceback" not in said


def test_a_gateway_says_where_it_listens(environment: Environment) -> None:
    """As soon as it does: whoever reads the line can connect."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        environment |= {"HOST": "127.0.0.1", "PORT": str(free.getsockname()[1])}
    with WorkerProcess(environment, program=GATEWAY) as gateway:
        line = gateway.said("gateway listening")
        assert (line["address"], str(line["port"])) == ("127.0.0.1", environment["PORT"])
        assert reachable(environment)
        assert gateway.stop() == 0


HOSTILE = """
import asyncio
from cachebus import on


async def deaf():
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            pass


@on("awaiting", dict, timeout="50ms", retries=0)
async def awaiting(event):
    await deaf()


@on("yielding", dict, timeout="50ms", retries=0)
async def yielding(event):
    await deaf()
    yield


@on("fatal", dict)
def fatal(event):
    asyncio.get_running_loop().stop()
"""


@pytest.mark.parametrize("end", ["breaks", "is stopped"])
def test_a_process_ends_also_with_a_task_that_does_not(
    environment: Environment, redis: PrivateServer, tmp_path: Path, end: str
) -> None:
    """Handlers swallow their cancellation: the platform gets an exit code, a person their names and where they hang."""
    (tmp_path / "hostile.py").write_text(HOSTILE)
    path = f"{ROOT}:{APPS}:{tmp_path}"
    with WorkerProcess({**environment, "HANDLERS": "hostile", "PYTHONPATH": path, "DRAIN_BUDGET": "1s"}) as worker:
        worker.said("worker ready")
        for channel in ("awaiting", "yielding"):
            redis.ask("XADD", "{cachebus}:events:0", "*", "channel", channel, "payload", "{}")
        until(lambda: redis.ask("XLEN", "{cachebus}:deadletters") == 2, "those that are left behind")
        if end == "breaks":
            redis.ask("XADD", "{cachebus}:events:0", "*", "channel", "fatal", "payload", "{}")
        else:
            worker.signal(signal.SIGTERM)
        assert worker.ended() == 1
    said = "\n".join(line["message"] for line in worker.lines)
    for handler, line in (("awaiting", 16), ("yielding", 21)):
        place = rf"hostile\.{handler} \(\S+/hostile\.py:{line}\) > hostile\.deaf \(\S+/hostile\.py:9\)"
        assert re.search(rf"^{place} swallows its cancellation; this process ends without it$", said, re.MULTILINE)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly(environment: Environment, number: signal.Signals) -> None:
    """Told to stop, an idle worker drains, leaves no heartbeat behind, and exits with 0."""
    with WorkerProcess(environment) as worker:
        worker.said("worker started")
        until(lambda: ask(environment, "check")[0] == 0, "the heartbeat")
        worker.signal(number)
        assert worker.ended() == 0
        assert worker.said("worker stopped")["signal"] == number.name
    assert list(Path(environment["DATA_DIR"], "workers").iterdir()) == []


def test_many_signals_are_one(environment: Environment) -> None:
    """A platform, or a person, that asks again and again until the process is gone changes nothing: exit code 0."""
    with WorkerProcess(environment) as worker:
        worker.said("worker started")
        sent = 0
        while worker.process.poll() is None:
            worker.signal(signal.SIGTERM if sent % 2 else signal.SIGINT)
            sent += 1
            time.sleep(0.001)  # hundreds of them, spread over the drain and the end of the process
        assert worker.ended() == 0
        assert sent > 1
        assert len([line for line in worker.lines if line["message"] == "worker stopped"]) == 1


def test_check_tells_living_from_dead(environment: Environment) -> None:
    """0 while it lives, 1 after kill -9, and the file of the dead is gone when the next one starts."""
    assert ask(environment, "check")[0] == 1
    with WorkerProcess(environment) as worker:
        worker.said("worker started")
        code, said = until(lambda: (found := ask(environment, "check", "--ready"))[0] == 0 and found, "check to pass")
        assert (code, said) == (0, f"worker {worker.process.pid}: ready\n")
        worker.kill()
        assert ask(environment, "check")[0] == 1


def test_redis_absent_at_start_is_waited_for(environment: Environment, redis: PrivateServer) -> None:
    """Without Redis it starts, lives, says so once, is not ready; when Redis comes it works."""
    redis.kill()
    with WorkerProcess(environment) as worker:
        worker.said("worker started")
        until(lambda: "waiting (redis unavailable)" in ask(environment, "check")[1], "the worker to wait")
        assert ask(environment, "check")[0] == 0
        assert ask(environment, "check", "--ready")[0] == 1
        redis.restart()
        until(lambda: ask(environment, "check", "--ready")[0] == 0, "the worker to be ready")
        assert len([line for line in worker.lines if line["message"].startswith("redis unavailable")]) == 1
        assert worker.stop() == 0


def test_a_server_that_hangs_up_is_not_stormed(environment: Environment) -> None:
    """Something else than Redis listens there: tried about once a second, said once; the worker ends when told to."""
    tried: list[float] = []
    with socket.create_server(("127.0.0.1", 0)) as other:
        threading.Thread(target=hang_up, args=(other, tried), daemon=True).start()
        with WorkerProcess({**environment, "REDIS_URL": f"redis://127.0.0.1:{other.getsockname()[1]}/0"}) as worker:
            until(lambda: len(tried) == 6, "six attempts")
            assert worker.stop() == 0
            assert len([line for line in worker.lines if line["message"].startswith("redis unavailable")]) == 1
    assert tried[5] - tried[0] > 4.0


def hang_up(other: socket.socket, tried: list[float]) -> None:
    """Close every connection that is made."""
    while True:
        try:
            connection, _ = other.accept()
        except OSError:
            return
        tried.append(time.monotonic())
        connection.close()


def test_redis_restarted_under_it_is_survived(environment: Environment, redis: PrivateServer) -> None:
    """An outage is one line when it begins and one when it ends; the process is the same throughout."""
    with WorkerProcess(environment) as worker:
        worker.said("worker started")
        redis.kill()
        worker.said("redis unavailable")
        redis.restart()
        worker.said("redis available again")
        until(lambda: ask(environment, "check", "--ready")[0] == 0, "the worker to be ready")
        assert worker.stop() == 0
        assert len([line for line in worker.lines if line["message"].startswith("redis ")]) == 2


def page(environment: Environment, path: str) -> tuple[int, str]:
    """Fetch one of the health pages."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{environment['PORT']}{path}") as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, refused.read().decode()


def test_the_health_pages_tell_living_from_ready(environment: Environment, redis: PrivateServer) -> None:
    """With PORT set: /healthz answers in every state, /readyz only when work is done, /metrics by template."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        environment |= {"HOST": "127.0.0.1", "PORT": str(free.getsockname()[1])}
    with WorkerProcess(environment) as worker:
        worker.said("worker started")
        until(lambda: reachable(environment) and page(environment, "/readyz")[0] == 200, "the pages")
        assert page(environment, "/healthz") == (200, "alive\n")
        code, metrics = page(environment, "/metrics")
        assert code == 200
        assert 'cachebus_cache_hits_total{layer="memory",view="orders:{customer}:total"} 0.0' in metrics
        assert "cachebus_worker_ready 1.0" in metrics
        for counted in ("worker_tasks", "worker_threads", "worker_allocated_blocks"):
            assert float(re.findall(rf"^cachebus_{counted} (\S+)", metrics, re.MULTILINE)[0]) > 1
        redis.kill()
        until(lambda: page(environment, "/readyz")[0] == 503, "not ready")
        assert page(environment, "/healthz")[0] == 200
        assert worker.stop() == 0


def reachable(environment: Environment) -> bool:
    """Return whether the port is open."""
    try:
        socket.create_connection(("127.0.0.1", int(environment["PORT"]))).close()
    except OSError:
        return False
    return True


def test_without_redis_it_says_that_nothing_is_shared(environment: Environment) -> None:
    """REDIS_ENABLED=false is said loudly; the process runs and ends as ever."""
    with WorkerProcess({**environment, "REDIS_ENABLED": "false"}) as worker:
        worker.said("REDIS_ENABLED=false: this worker handles the events and schedules of its own process")
        worker.said("worker started")
        assert worker.stop() == 0, worker.text


def test_without_a_url_it_brings_its_own_server(environment: Environment, tmp_path: Path) -> None:
    """With no REDIS_URL it starts the embedded server and says so; commands in the same folder talk to it."""
    del environment["REDIS_URL"]
    with WorkerProcess(environment, cwd=tmp_path) as worker:
        worker.said("REDIS_URL is not set: using the embedded")
        worker.said("worker started")
        code, said = ask(environment, "stats", cwd=tmp_path)
        assert code == 0
        assert f".{worker.process.pid}  " in said
        assert worker.stop() == 0


def test_config_shows_where_each_value_comes_from(environment: Environment) -> None:
    """Values, their source, secrets masked; nothing is connected."""
    code, said = ask({**environment, "DATABASE_URL": "postgresql://u:hunter22@h/db"}, "config")
    assert code == 0
    assert "postgresql://u:***@h/db" in said
    assert "environment" in said
    assert "hunter22" not in said


def test_a_worker_says_when_it_is_ready(environment: Environment, redis: PrivateServer) -> None:
    """Each change is a line: ready, waiting with the reason, ready once more."""
    with WorkerProcess(environment) as worker:
        worker.said("worker ready")
        redis.kill()
        until(lambda: ("worker waiting", "redis unavailable") in changes(worker), "the outage")
        redis.restart()
        until(lambda: [word for word, _ in changes(worker)].count("worker ready") == 2, "the second line")
        assert worker.stop() == 0


def changes(worker: WorkerProcess) -> list[tuple[str, str]]:
    """Return what a worker has said of its state, with the reasons."""
    said = [line for line in worker.lines if line["message"] in {"worker ready", "worker waiting"}]
    return [(line["message"], line.get("why", "")) for line in said]


def test_a_dead_database_is_said(environment: Environment, tmp_path: Path) -> None:
    """The application's check fails: not ready, one line with the reason, and doctor says it; then it recovers."""
    environment |= {"READY_CHECK": "shop.views:answers"}
    (tmp_path / "database-down").touch()
    with WorkerProcess(environment) as worker:
        assert "the database is down" in worker.said("application not ready")["reason"]
        until(lambda: "the application: ConnectionError: the database is down" in ask(environment, "check")[1], "why")
        assert ask(environment, "check", "--ready")[0] == 1
        code, said = ask(environment, "doctor")
        assert (code, "READY_CHECK: the application is not ready" in said) == (1, True)
        (tmp_path / "database-down").unlink()
        worker.said("application ready")
        worker.said("worker ready")
        assert worker.stop() == 0
        assert len([line for line in worker.lines if line["message"] == "application not ready"]) == 1
    assert "READY_CHECK: the application is ready" in ask(environment, "doctor")[1]


def test_a_data_folder_that_cannot_be_written_is_replaced(environment: Environment, tmp_path: Path) -> None:
    """On a read-only file system the health check works all the same: it looks where the worker writes instead."""
    (tmp_path / "file").touch()
    environment |= {"DATA_DIR": str(tmp_path / "file" / "data")}
    assert ask(environment, "check")[0] == 1
    with WorkerProcess(environment) as worker:
        worker.said("worker ready")
        assert ask(environment, "check", "--ready") == (0, f"worker {worker.process.pid}: ready\n")
        assert "is used instead" in ask(environment, "doctor")[1]
        assert worker.stop() == 0
    assert ask(environment, "check")[0] == 1


IMPATIENT = """
from cachebus.process import patient_http

patient_http.HEADERS_S = 1.0
"""


def test_requests_that_never_end_are_closed(environment: Environment, tmp_path: Path) -> None:
    """Nobody keeps the worker's pages busy by beginning requests: each is answered with 408 and closed."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        environment |= {"HOST": "127.0.0.1", "PORT": str(free.getsockname()[1])}
    (tmp_path / "impatient.py").write_text(IMPATIENT)
    environment |= {"HANDLERS": "shop.orders,impatient", "PYTHONPATH": f"{ROOT}:{APPS}:{tmp_path}"}
    with WorkerProcess(environment) as worker:
        worker.said("worker ready")
        until(lambda: reachable(environment), "the pages")
        begun = [socket.create_connection(("127.0.0.1", int(environment["PORT"])), timeout=30) for _ in range(50)]
        for connection in begun:
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\nX-Never: ")
        for connection in begun:
            with connection:
                assert connection.recv(100).startswith(b"HTTP/1.1 408 ")
        assert page(environment, "/healthz")[0] == 200
        assert worker.stop() == 0
