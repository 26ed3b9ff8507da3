"""The worker as a process: it refuses a bad environment, says how it is, waits out an outage, and ends when told to."""

from __future__ import annotations

import re
import signal
import socket
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from harness import WorkerProcess, ask, until

from cachebus.private_server import PrivateServer

Environment = dict[str, str]


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
    assert "no package 'nowhere'" in said
    assert "no package 'shop.absent'" in said
    assert "'total' in shop.views is View, not a Cache" in said


def test_refused_credentials_are_said_once_and_end_it(environment: Environment, redis: PrivateServer) -> None:
    """A wrong password is no outage: exit code 2 and which variable to correct, without the password."""
    redis.ask("CONFIG", "SET", "requirepass", "right-password")
    wrong = environment["REDIS_URL"].replace("redis://", "redis://:wrong-password@")
    code, said = ask({**environment, "REDIS_URL": wrong})
    assert code == 2
    assert "REDIS_URL: the server refuses these credentials" in said
    assert "wrong-password" not in said


def test_a_taken_port_is_refused(environment: Environment) -> None:
    """A health port somebody else has is exit code 2, not a crash loop."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code, said = ask({**environment, "HOST": "127.0.0.1", "PORT": str(taken.getsockname()[1])})
    assert code == 2
    assert "PORT: " in said


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
        assert sent >= 10
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
        until(lambda: "waiting (redis is away)" in ask(environment, "check")[1], "the worker to wait")
        assert ask(environment, "check")[0] == 0
        assert ask(environment, "check", "--ready")[0] == 1
        redis.restart()
        until(lambda: ask(environment, "check", "--ready")[0] == 0, "the worker to be ready")
        assert len([line for line in worker.lines if line["message"].startswith("redis is away")]) == 1
        assert worker.stop() == 0


def test_a_server_that_hangs_up_is_not_stormed(environment: Environment) -> None:
    """Something else than Redis listens there: tried about once a second, said once; the worker ends when told to."""
    tried: list[float] = []
    with socket.create_server(("127.0.0.1", 0)) as other:
        threading.Thread(target=hang_up, args=(other, tried), daemon=True).start()
        with WorkerProcess({**environment, "REDIS_URL": f"redis://127.0.0.1:{other.getsockname()[1]}/0"}) as worker:
            until(lambda: len(tried) == 6, "six attempts")
            assert worker.stop() == 0
            assert len([line for line in worker.lines if line["message"].startswith("redis is away")]) == 1
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
        worker.said("redis is away")
        redis.restart()
        worker.said("redis is back")
        until(lambda: ask(environment, "check", "--ready")[0] == 0, "the worker to be ready")
        assert worker.stop() == 0
        assert len([line for line in worker.lines if line["message"].startswith("redis is")]) == 2


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
        assert 'cache_hits_total{layer="memory",view="orders:{customer}:total"} 0.0' in metrics
        assert "worker_ready 1.0" in metrics
        for counted in ("worker_tasks", "worker_threads", "python_allocated_blocks"):
            assert float(re.findall(rf"^{counted} (\S+)", metrics, re.MULTILINE)[0]) > 1
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
        worker.said("REDIS_ENABLED=false: this worker handles no events")
        worker.said("worker started")
        assert worker.stop() == 0


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
