"""Runs programs as if each were pasted into a file of its own, in one forked process each: Python and the library are
loaded once. `python -m tests.support.pasted` reads requests, one a line, and answers each.
"""

from __future__ import annotations

import json
import os
import runpy
import signal
import subprocess
import sys
import warnings
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.support.worker_program import ROOT

DEADLINE_S = 60


class Pasting:
    """A process that runs programs."""

    def __enter__(self) -> Self:
        """Start it."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.pasted"],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """End it."""
        self._process.communicate()

    def run(self, code: str, folder: Path, **environment: str) -> str:
        """Run a program in *folder*; returns what it printed. Raises: AssertionError with that, where it failed."""
        (folder / "program.py").write_text(code, encoding="utf-8")
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([str(folder), environment]) + "\n")
        self._process.stdin.flush()
        status = int(self._process.stdout.readline())
        said = (folder / "said").read_text(encoding="utf-8")
        assert status == 0, said
        return said


def _load() -> None:
    """Import what programs import, and nothing that starts a thread: threads do not survive a fork."""
    import fastapi  # noqa: F401, PLC0415
    import sqlalchemy.ext.asyncio  # noqa: F401, PLC0415

    import cachebus  # noqa: PLC0415
    import cachebus.sync  # noqa: PLC0415
    import cachebus.testing  # noqa: PLC0415

    for name in cachebus.__all__:
        getattr(cachebus, name)


def _serve() -> None:
    """Answer each request with the exit status of its program."""
    for line in sys.stdin:
        folder, environment = json.loads(line)
        child = os.fork()
        if child == 0:
            _run(Path(folder), environment)
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{status}\n")
        sys.stdout.flush()


def _run(folder: Path, environment: dict[str, Any]) -> None:
    """Become the program; does not return."""
    signal.alarm(DEADLINE_S)
    said = os.open(folder / "said", os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    for descriptor in (1, 2):
        os.dup2(said, descriptor)
    os.chdir(folder)
    os.environ.update(environment)
    sys.argv, sys.path[0] = ["program.py"], str(folder)
    warnings.simplefilter("error")
    status = 1
    try:
        runpy.run_path("program.py", run_name="__main__")
        status = 0
    except BaseException:  # noqa: BLE001 - whatever a program ends with is its answer
        sys.excepthook(*sys.exc_info())
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    _load()
    _serve()
