"""For development: runs the worker as a child, and starts it again when a source file changes."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

from worker.settings import Settings
from worker.stop import Stop

LOOK_S = 0.5
OURS = ("cachebus", "worker")


def watch(settings: Settings) -> int:
    """Keep a worker running until SIGTERM or SIGINT; returns the exit code of the last one."""
    stop = Stop(settings.process.drain_ms / 1000)
    stop.install()
    folders = [*OURS, *settings.application.handlers, *settings.application.schedules, settings.application.cache[0]]
    while True:
        child = subprocess.Popen([sys.executable, "-m", "worker", "run"])
        seen = _changes(folders)
        while not stop.signal and _changes(folders) == seen:
            time.sleep(LOOK_S)
        child.terminate()
        code = child.wait()
        if stop.signal:
            stop.finished()
            return code
        sys.stderr.write("a source file changed: starting again\n")


def _changes(packages: list[str]) -> dict[Path, int]:
    """Return when each source file last changed."""
    times = {}
    for package in packages:
        found = find_spec(package.partition(".")[0])  # the outermost one: finding it imports nothing
        for folder in (found and found.submodule_search_locations) or ():
            for path in Path(folder).rglob("*.py"):
                with contextlib.suppress(FileNotFoundError):  # an editor replaces files
                    times[path] = path.stat().st_mtime_ns
    return times
