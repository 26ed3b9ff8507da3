"""The heartbeat file: how a worker without a port says that it lives, and how `check` reads it.

One file a process, `DATA_DIR/workers/<pid>.json`, written every few seconds from the event loop: a loop that is stuck
stops writing. On a read-only file system it is in a folder in memory, or for temporary files, where `check`
looks as well. Imports next to nothing, so that a platform may ask often.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

BEAT_S = 5.0
"""How often a worker says that it lives: one file write and one Redis command."""
SILENT_S = 20.0
"""A worker that has said nothing for this long is stuck. Four beats: a busy machine delays one or two."""
STUCK = "stuck"
DATA_DIR = ".data"
"""`DATA_DIR`'s default, here because `check` must not load the settings."""
SUBSTITUTES = ("/dev/shm", "/tmp")  # noqa: S108 - a folder of our own below it, which must be ours
"""Writable where nothing else is: memory, and what a platform mounts for temporary files."""


class Heartbeat:
    """This process's file. A disk that refuses is reported once by whoever calls `beat`, and is not fatal."""

    def __init__(self, data_dir: str, pid: int | None = None) -> None:
        self._folders = folders(data_dir)
        self._name = f"{pid or os.getpid()}.json"
        self.path = self._folders[0] / self._name

    def begin(self) -> None:
        """Choose the folder, and remove what killed workers left there. Raises: OSError where none can be written."""
        for folder in self._folders:
            with suppress(OSError):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                if os.access(folder, os.W_OK) and _ours(folder):
                    self.path = folder / self._name
                    break
        for path in self.path.parent.glob("*.json"):
            said = _read(path)
            if said is None or not _alive(said["pid"]):
                path.unlink(missing_ok=True)

    def beat(self, state: str, why: str = "") -> None:
        """Write that this process lives and how it is. Raises: OSError."""
        said = {"pid": int(self.path.stem), "at": time.time(), "state": state, "why": why}
        fresh = self.path.with_suffix(".new")
        fresh.write_text(json.dumps(said), encoding="utf-8")
        fresh.replace(self.path)  # a reader sees the old file or the new one, never half of one

    def remove(self) -> None:
        """Say nothing more. Idempotent."""
        self.path.unlink(missing_ok=True)
        if self.path.parent != self._folders[0]:
            with suppress(OSError):  # another worker's file is there
                self.path.parent.rmdir()


def folders(data_dir: str) -> list[Path]:
    """Return where heartbeats of *data_dir* may be, the best first."""
    name = str(Path(data_dir).absolute()).replace("/", "_")[-150:]
    user = os.getuid() if hasattr(os, "getuid") else 0
    return [
        Path(data_dir) / "workers",
        *(Path(each) / f"cachebus-{user}{name}" for each in SUBSTITUTES if Path(each).is_dir()),
    ]


class Checked(NamedTuple):
    """One worker on this machine."""

    pid: int
    state: str
    """What it last said of itself, such as `ready`; `stuck` where it has said nothing for too long."""
    why: str
    silent_s: float

    def __str__(self) -> str:
        stuck = f": no heartbeat for {self.silent_s:.0f} s" if self.state == STUCK else ""
        return f"worker {self.pid}: {self.state}{stuck}" + (f" ({self.why})" if self.why else "")


def check(data_dir: str, *, ready: bool = False) -> tuple[int, list[Checked]]:
    """Return an exit code and the workers on this machine that use *data_dir*.

    0: every one lives (`ready`: and does its work). 1: none runs, or one is stuck. A worker that waits for Redis lives:
    restarting it would not help.
    """
    found = []
    for said in living(data_dir):
        silent_s = time.time() - said["at"]
        found.append(Checked(said["pid"], STUCK if silent_s > SILENT_S else said["state"], said["why"], silent_s))
    good = all(each.state == "ready" if ready else each.state != STUCK for each in found)
    return (0 if found and good else 1), found


def told(found: list[Checked], data_dir: str, *, as_json: bool) -> str:
    """Return what `check` prints of them."""
    if as_json:
        return json.dumps([each._asdict() for each in found])
    return "\n".join(map(str, found)) or f"no worker runs here (looked in {Path(data_dir) / 'workers'})"


def living(data_dir: str) -> Iterator[dict[str, Any]]:
    """Yield what the living workers have written."""
    for folder in folders(data_dir):
        if not _ours(folder):
            continue
        for path in sorted(folder.glob("*.json")):
            said = _read(path)
            if said is not None and _alive(said["pid"]):
                yield said


def _ours(folder: Path) -> bool:
    """Whether nobody else can write there on purpose: substitutes are in folders that everybody shares."""
    shared = any(folder.is_relative_to(each) for each in SUBSTITUTES) and folder.name.startswith("cachebus-")
    try:
        return not shared or (folder.stat().st_uid == os.getuid() and not folder.is_symlink())
    except OSError:
        return False


def _read(path: Path) -> dict[str, Any] | None:
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return said if isinstance(said, dict) and said.keys() >= {"pid", "at", "state", "why"} else None


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's process: alive
        return True
    return True
