"""Node, and what tests need of the npm registry."""

from __future__ import annotations

import fcntl
import subprocess
from pathlib import Path

from tests.support.lacking import lacking, program

FOLDER = Path(__file__).parents[2] / ".data" / "node"


def installed(*packages: str) -> Path:
    """Return a folder in which Node finds these; installed once, by one process at a time. Skips offline."""
    npm, folder = program("npm"), FOLDER / "+".join(packages)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "ready").exists():
            options = ("--prefix", str(folder), "--no-save", "--no-package-lock", "--no-audit", "--no-fund")
            done = subprocess.run([npm, "install", *options, *packages], capture_output=True, text=True, check=False)
            if done.returncode != 0:
                lacking(f"{' '.join(packages)} from npm: {done.stderr}")
            (folder / "ready").touch()
    return folder
