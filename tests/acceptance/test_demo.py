"""`make demo`: the whole system, real processes, real prices, and a verdict."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_demo_ends_with_everything_held(tmp_path: Path) -> None:
    """Set-up, server, worker, two applications, a listener: nothing lost, nothing stale, exit code 0."""
    environment = {name: value for name, value in os.environ.items() if "REDIS" not in name and name != "DATABASE_URL"}
    done = subprocess.run(
        [sys.executable, "-m", "examples.run", "--seconds", "10"],
        env={**environment, "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "ok   no read was stale" in done.stdout
    for name in ("worker", "app-a", "listener", "page", "gateway"):
        assert f"stopped      {name}" in done.stdout
