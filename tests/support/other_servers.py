"""Servers of other makes and shapes than the one the library carries: Redis 7, and a primary that Sentinel replaces."""

from __future__ import annotations

import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from cachebus.redis.embedded.loopback import HOST, ask, free_port

START_S = 20.0
DOWN_AFTER_MS = 400
"""Sentinel gives a primary up after this long."""


class Process:
    """One server process, on loopback, without a file of its own that outlives it."""

    def __init__(self, binary: str, directory: Path, *config: str) -> None:
        self.port = free_port()
        words = [word for line in config for word in line.split()]
        self._process = subprocess.Popen(
            [binary, *words, "--port", str(self.port), "--bind", HOST, "--dir", str(directory)],
            stdout=subprocess.DEVNULL,
        )
        self._answers()

    def _answers(self) -> None:
        end = time.monotonic() + START_S
        while True:
            with suppress(OSError):
                if ask(self.port, "PING") == b"PONG":
                    return
            assert time.monotonic() < end, "the server does not answer"
            assert self._process.poll() is None, "the server ended while it started"
            time.sleep(0.01)

    def ask(self, *command: str | int) -> Any:
        """Send one command over a connection of its own."""
        return ask(self.port, *command)

    def kill(self) -> None:
        """kill -9."""
        self._process.kill()
        self._process.wait()

    def pause(self) -> None:
        """SIGSTOP: nothing is answered, nothing is closed."""
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        self._process.send_signal(signal.SIGCONT)


@contextmanager
def processes(binary: str, *configs: tuple[str, ...]) -> Iterator[list[Process]]:
    """Run servers for as long as the block lasts."""
    with ExitStack() as stack:
        started = []
        for config in configs:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cachebus-")))
            started.append(Process(binary, directory, *config))
            stack.callback(started[-1].kill)
        yield started


class Watched:
    """A primary, its replica, and a sentinel that puts the one in the other's place."""

    def __init__(self, primary: Process, replica: Process, sentinel: Process) -> None:
        self.primary = primary
        self.replica = replica
        self.sentinel = sentinel
        self.url = f"redis+sentinel://{HOST}:{sentinel.port}/main/0"

    def replica_has(self, key: str) -> bool:
        """Whether replication brought *key*."""
        return bool(ask(self.replica.port, "EXISTS", key))

    def failed_over(self) -> bool:
        """Whether the sentinel tells the replica's address."""
        _host, port = ask(self.sentinel.port, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", "main")
        return int(port) == self.replica.port and ask(self.replica.port, "ROLE")[0] == b"master"


@contextmanager
def watched(binary: str) -> Iterator[Watched]:
    """Run the three of them for as long as the block lasts."""
    with ExitStack() as stack:
        (primary,) = stack.enter_context(processes(binary, ("--appendonly no", "--repl-diskless-sync-delay 0")))
        follow = (f"--replicaof {HOST} {primary.port}", "--appendonly no")
        (replica,) = stack.enter_context(processes(binary, follow))
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cachebus-")))
        config = directory / "sentinel.conf"
        config.write_text(
            f"sentinel monitor main {HOST} {primary.port} 1\n"
            f"sentinel down-after-milliseconds main {DOWN_AFTER_MS}\n"
            "sentinel failover-timeout main 3000\n"
        )
        sentinel = Process(binary, directory, str(config), "--sentinel")
        stack.callback(sentinel.kill)
        end = time.monotonic() + START_S
        while not _sees_replica(sentinel, replica):
            assert time.monotonic() < end, "the sentinel does not find the replica"
            time.sleep(0.02)
        yield Watched(primary, replica, sentinel)


def _sees_replica(sentinel: Process, replica: Process) -> bool:
    flat = ask(sentinel.port, "SENTINEL", "MASTER", "main")
    facts = dict(zip(flat[::2], flat[1::2], strict=True))
    role = ask(replica.port, "ROLE")
    return facts[b"num-slaves"] == b"1" and facts[b"flags"] == b"master" and role[3] == b"connected"
