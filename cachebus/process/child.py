"""A process that is started again when it ends or when its files change; its lines are shown with its name."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import AsyncIterator, Callable, Mapping, Sequence

import anyio
import anyio.abc

PAUSE_S = 1.0
"""Between the end of a process and its next start."""
CANNOT_START = 2
"""The exit code of a process that only a change of its files or settings can help."""

Show = Callable[[str, str], None]
"""Called with the name of a process and each of its lines."""


class Child:
    """A child process. It shares our terminal, so that Ctrl-C and a closed window reach it too."""

    def __init__(
        self, name: str, command: Sequence[str], environment: Mapping[str, str], show: Show, *, reloads: bool = False
    ) -> None:
        self.name = name
        self.reloads = reloads
        """Whether it is restarted when a file changes."""
        self._command = command
        self._environment = environment
        self._show = show
        self._process: anyio.abc.Process | None = None
        self._wanted = anyio.Event()
        self._stopping = False

    async def keep(self) -> None:
        """Run it until `stop`; start it again whenever it ends."""
        while not self._stopping:
            self._wanted = anyio.Event()
            try:
                code = await self._run()
            except OSError as refused:
                self._show(self.name, f"cannot be started: {self._command[0]}: {refused.strerror}")
                code = CANNOT_START
            if self._wanted.is_set():
                continue
            patience = float("inf") if code == CANNOT_START else PAUSE_S
            self._show(self.name, f"ended with exit code {code}; restarting {_when(patience)}")
            with anyio.move_on_after(patience):
                await self._wanted.wait()

    def restart(self) -> None:
        """End it, so that it is started again."""
        self._wanted.set()
        self._signal(kill=False)

    def stop(self) -> None:
        """End it for good."""
        self._stopping = True
        self.restart()

    def kill(self) -> None:
        """End it for good, at once."""
        self._stopping = True
        self._wanted.set()
        self._signal(kill=True)

    async def _run(self) -> int:
        async with await anyio.open_process(
            self._command,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
        ) as self._process:
            if self._wanted.is_set():  # while it was being started
                self._signal(kill=False)
            async for line in _lines(self._process):
                self._show(self.name, line)
            return await self._process.wait()

    def _signal(self, *, kill: bool) -> None:
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                (self._process.kill if kill else self._process.terminate)()


async def _lines(process: anyio.abc.Process) -> AsyncIterator[str]:
    assert process.stdout is not None  # noqa: S101 - it was opened with a pipe
    rest = b""
    async for chunk in process.stdout:
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line.decode(errors="replace")
    if rest:
        yield rest.decode(errors="replace")


def _when(patience_s: float) -> str:
    return "when a file changes" if patience_s == float("inf") else f"in {patience_s:g} s"
