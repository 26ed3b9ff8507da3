"""The heartbeat file: how a worker without a port says that it lives, and how `check` reads it.

One file a process, `DATA_DIR/workers/<pid>.json`, written every few seconds from the event loop: a loop that is stuck
stops writing. Imports next to nothing, so that a platform may ask often.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

BEAT_S = 5.0
"""How often a worker says that it lives: one file write and one Redis command."""
SILENT_S = 20.0
"""A worker that has said nothing for this long is stuck. Four beats: a busy machine delays one or two."""
DATA_DIR = ".data"
"""`DATA_DIR`'s default, here because `check` must not load the settings."""


class Heartbeat:
    """This process's file. A disk that refuses is reported once by whoever calls `beat`, and is not fatal."""

    def __init__(self, data_dir: str, pid: int | None = None) -> None:
        self.path = Path(data_dir) / "workers" / f"{pid or os.getpid()}.json"

    def clear_dead(self) -> None:
        """Remove what killed workers left behind. Raises: OSError."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
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


def check(data_dir: str, *, ready: bool = False) -> tuple[int, list[str]]:
    """Return an exit code and a line for each worker on this machine that uses *data_dir*.

    0: every one lives (`ready`: and does its work). 1: none runs, or one is stuck. A worker that waits for Redis lives:
    restarting it would not help.
    """
    lines, good = [], True
    for path in sorted((Path(data_dir) / "workers").glob("*.json")):
        said = _read(path)
        if said is None or not _alive(said["pid"]):
            continue
        silent_s = time.time() - said["at"]
        stuck = silent_s > SILENT_S
        good &= not stuck and (said["state"] == "ready" or not ready)
        state = f"stuck: nothing heard for {silent_s:.0f} s" if stuck else said["state"]
        lines.append(f"worker {said['pid']}: {state}" + (f" ({said['why']})" if said["why"] else ""))
    if not lines:
        return 1, [f"no worker runs here (looked in {Path(data_dir) / 'workers'})"]
    return (0 if good else 1), lines


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
