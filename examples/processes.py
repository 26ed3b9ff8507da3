"""The child processes of `make run`: started, started again when they die, stopped with us."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

LOG = Path(".data/worker.log")
AGAIN_S = 1.0
"""A process that died is started again after this long."""
LOOK_S = 0.1
PATIENCE_S = 12.0
"""A process that has not stopped after this long is killed."""
ASK_S = 2.0

Said = Callable[[dict[str, Any]], None]
"""Called with each line of JSON a process prints."""
Ended = Callable[[str], None]
"""Called with what happened to a process that ended by itself."""


class Process:
    """A child process of ours, started again when it dies, stopped with us."""

    def __init__(
        self,
        name: str,
        arguments: tuple[str, ...],
        environment: dict[str, str],
        said: Said | None,
        ended: Ended = lambda _text: None,
    ) -> None:
        self.name = name
        self._told = ended
        self.restarts = 0
        self._arguments = arguments
        self.environment = environment
        """What its next start is given beside our own environment."""
        self._said = said
        self._sockets: tuple[int, ...] = ()
        """Open sockets that it inherits."""
        self._stopping = False
        self._child: asyncio.subprocess.Process | None = None
        self._keeper = asyncio.create_task(self._keep())

    @property
    def alive(self) -> bool:
        """Whether it runs now."""
        return self._child is not None and self._child.returncode is None

    async def stop(self, patience_s: float = PATIENCE_S) -> int:
        """Ask it to stop, kill it if it does not; returns its exit code."""
        self._stopping = True
        if self._child is not None and self.alive:
            self._child.send_signal(signal.SIGTERM)
        done, _ = await asyncio.wait([self._keeper], timeout=patience_s)
        if not done and self._child is not None:
            self.kill()
            await self._keeper
        return -1 if self._child is None or self._child.returncode is None else self._child.returncode

    def kill(self) -> None:
        """End it at once."""
        self._stopping = True
        if self._child is not None and self.alive:
            self._child.kill()

    async def _keep(self) -> None:
        while not self._stopping:
            LOG.parent.mkdir(exist_ok=True)
            log = LOG.open("ab") if self._said is None else None  # noqa: ASYNC230 - a local file, opened once
            self._child = await asyncio.create_subprocess_exec(
                sys.executable,
                *self._arguments,
                env={**os.environ, **self.environment},
                stdout=log or asyncio.subprocess.PIPE,
                stderr=log,
                pass_fds=self._sockets,
                start_new_session=True,  # Ctrl-C is ours to pass on
                limit=1 << 20,
            )
            if log is not None:
                log.close()
            if self._said is not None and self._child.stdout is not None:
                async for line in self._child.stdout:
                    with contextlib.suppress(ValueError):
                        self._said(json.loads(line))
            code = await self._child.wait()
            if not self._stopping:
                self.restarts += 1
                self._told(f"{self.name} ended with exit code {code}; restarting. Why: tail {LOG}")
                await asyncio.sleep(AGAIN_S)


class Site(Process):
    """A child that listens on a port: the one it would like, or another where somebody else has that one.

    The port is opened here and handed over, so nobody else can take it meanwhile, and who calls while the child starts
    waits. `{fd}` in its arguments is the socket, as is LISTEN_FD in its environment.
    """

    def __init__(
        self, name: str, port: int, arguments: tuple[str, ...], environment: dict[str, str], ended: Ended
    ) -> None:
        self._socket = opened(port)
        self.port = int(self._socket.getsockname()[1])
        fd = self._socket.fileno()
        address = {"HOST": "127.0.0.1", "PORT": str(self.port), "LISTEN_FD": str(fd)}
        words = tuple(word.replace("{fd}", str(fd)) for word in arguments)
        super().__init__(name, words, {**environment, **address}, None, ended)
        self._sockets = (fd,)

    async def stop(self, patience_s: float = PATIENCE_S) -> int:
        """Stop it and close its port."""
        code = await super().stop(patience_s)
        self._socket.close()
        return code

    async def answers(self) -> bool:
        """Return once it answers on its port; False where it is stopped before."""
        while not self._stopping:
            if await asyncio.to_thread(_answers, self.port):
                return True
            await asyncio.sleep(LOOK_S)
        return False


def opened(wanted: int) -> socket.socket:
    """Return a socket that listens on *wanted*, or on another port where somebody else has it."""
    with contextlib.suppress(OSError):
        return socket.create_server(("127.0.0.1", wanted))
    return socket.create_server(("127.0.0.1", 0))


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ASK_S)
    try:
        connection.request("GET", "/")
        connection.getresponse()
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
    return True
