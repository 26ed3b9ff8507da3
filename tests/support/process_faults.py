"""What befalls a process from outside: a wall clock that is wrong and jumps, and memory that it cannot have."""

from __future__ import annotations

import random
import resource
from collections.abc import Iterable
from pathlib import Path

HOURS_S = 3_600
_LIBRARIES = ("/usr/lib/*/faketime/libfaketime.so.1", "/usr/lib64/faketime/libfaketime.so.1")


def libfaketime() -> Path | None:
    """Return the library that gives a process a clock of its own, None where the machine lacks it."""
    return next((path for place in _LIBRARIES for path in Path("/").glob(place[1:])), None)


class SkewedClocks:
    """Wall clocks that are up to an hour wrong, each by its own amount. The monotonic clock is left alone, as always.

    Without libfaketime `environment` is empty and nothing jumps: look at `lacking`.
    """

    def __init__(self, folder: Path, draw: random.Random) -> None:
        self.folder = folder
        self._draw = draw
        self._library = libfaketime()
        self._files: list[Path] = []

    @property
    def lacking(self) -> str:
        """What the machine has not; '' for nothing."""
        return "" if self._library else "libfaketime (apt-get install faketime): every process has the true time"

    def environment(self) -> dict[str, str]:
        """Return what the next process is to have in its environment."""
        if self._library is None:
            return {}
        self._files.append(self.folder / f"clock-{len(self._files)}")
        self._set(self._files[-1])
        return {
            "LD_PRELOAD": str(self._library),
            "FAKETIME_TIMESTAMP_FILE": str(self._files[-1]),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def jump(self) -> int:
        """Set every clock to another wrong time, within a second; return how many there are."""
        for file in self._files:
            self._set(file)
        return len(self._files)

    def _set(self, file: Path) -> None:
        replaced = file.with_suffix(".new")
        replaced.write_text(f"{self._draw.randint(-HOURS_S, HOURS_S):+d}\n")
        replaced.replace(file)


def pinch(pid: int) -> None:
    """Let a process have no more memory than it has now: what it asks for is refused. Raises: ProcessLookupError."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[0])
    except FileNotFoundError as ended:
        raise ProcessLookupError from ended
    resource.prlimit(pid, resource.RLIMIT_AS, (pages * resource.getpagesize(), resource.RLIM_INFINITY))


def release(pids: Iterable[int]) -> None:
    """Let processes have what they ask for again. Those that have ended are passed over."""
    for pid in pids:
        try:
            resource.prlimit(pid, resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        except ProcessLookupError:
            continue
