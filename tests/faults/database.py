"""The truth that the fault matrix reads against: a file of versions that all its processes map."""

from __future__ import annotations

import mmap
import time
from pathlib import Path

KEYS = 8
RING = 64
"""Versions of one key that are remembered: more than change within any bound."""
NEVER = 1 << 62
_ROW = 1 + 2 * RING
_PULSE = KEYS * _ROW


def now_ns() -> int:
    """Return a time that all processes of this machine agree on."""
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC)


class Database:
    """The current version of each key, and for each of the last versions since when nobody may read an older one.

    All are numbers of 8 bytes, and each is read and written at once: others look on (`struct` writes zeros first).
    """

    def __init__(self, path: Path) -> None:
        if not path.exists():
            path.write_bytes(bytes((_PULSE + 1) * 8))
        with path.open("r+b") as file:
            self._numbers = memoryview(mmap.mmap(file.fileno(), 0)).cast("q")

    def version(self, key: int) -> int:
        """Return what a load reads."""
        return self._numbers[key * _ROW]

    def change(self, key: int) -> int:
        """Write the next version; returns it. Nothing has been invalidated yet."""
        version = self.version(key) + 1
        slot = self._slot(key, version)
        self._numbers[slot + 1] = NEVER  # in this order: a reader may look in between
        self._numbers[slot] = version
        self._numbers[key * _ROW] = version
        return version

    def invalidated(self, key: int, version: int) -> None:
        """Note that the invalidation after this version has returned now."""
        self._numbers[self._slot(key, version) + 1] = now_ns()

    def floor(self, key: int, moment_ns: int) -> tuple[int, int]:
        """Return the newest version whose invalidation had returned by a moment, and when it had."""
        first = key * _ROW + 1
        slots = self._numbers[first : first + 2 * RING].tolist()
        rows = zip(slots[::2], slots[1::2], strict=True)
        return max(((version, at) for version, at in rows if at <= moment_ns), default=(0, 0))

    @property
    def pulse_ns(self) -> int:
        """When all servers, and the network before them, were last seen to run."""
        return self._numbers[_PULSE]

    def beat(self) -> None:
        """Note that they run."""
        self._numbers[_PULSE] = now_ns()

    @staticmethod
    def _slot(key: int, version: int) -> int:
        return key * _ROW + 1 + version % RING * 2
