"""A worker without a port says that it lives, and `check` believes only living ones."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cachebus.worker.health.heartbeat import SILENT_S, Heartbeat, check, told


def dead_pid() -> int:
    """Return the id of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_living_worker_passes(tmp_path: Path) -> None:
    """After a beat of a living process the check is 0 and says who and how."""
    heartbeat = Heartbeat(str(tmp_path))
    heartbeat.begin()
    heartbeat.beat("ready")
    code, found = check(str(tmp_path))
    assert (code, told(found, str(tmp_path), as_json=False)) == (0, f"worker {os.getpid()}: ready")
    (said,) = json.loads(told(found, str(tmp_path), as_json=True))
    assert (said["pid"], said["state"], said["why"]) == (os.getpid(), "ready", "")
    assert 0 <= said["silent_s"] < SILENT_S


def test_no_worker_fails(tmp_path: Path) -> None:
    """Nothing running here, or only what a killed worker left: the check is 1 and says where it looked."""
    Heartbeat(str(tmp_path), dead_pid()).path.parent.mkdir(parents=True)
    Heartbeat(str(tmp_path), dead_pid()).beat("ready")
    code, found = check(str(tmp_path))
    assert code == 1
    assert str(tmp_path) in told(found, str(tmp_path), as_json=False)
    assert told(found, str(tmp_path), as_json=True) == "[]"


def test_a_stuck_worker_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that lives but has stopped saying so is stuck: 1."""
    heartbeat = Heartbeat(str(tmp_path))
    heartbeat.begin()
    heartbeat.beat("ready")
    later = time.time() + SILENT_S + 1
    monkeypatch.setattr("cachebus.worker.health.heartbeat.time.time", lambda: later)
    code, (stuck,) = check(str(tmp_path))
    assert (code, stuck.state) == (1, "stuck")
    assert str(stuck) == f"worker {os.getpid()}: stuck: no heartbeat for 21 s"


def test_one_that_waits_lives_but_is_not_ready(tmp_path: Path) -> None:
    """A worker that waits for Redis must not be restarted for it: 0, and 1 only where readiness is asked for."""
    heartbeat = Heartbeat(str(tmp_path))
    heartbeat.begin()
    heartbeat.beat("waiting", "redis is away")
    assert check(str(tmp_path))[0] == 0
    code, (waiting,) = check(str(tmp_path), ready=True)
    assert (code, str(waiting)) == (1, f"worker {os.getpid()}: waiting (redis is away)")


def test_a_start_clears_what_the_dead_left(tmp_path: Path) -> None:
    """The next worker removes the files of killed ones and half-written ones, and leaves the living alone."""
    folder = tmp_path / "workers"
    folder.mkdir()
    (folder / "1.json").write_text(json.dumps({"pid": dead_pid(), "at": 0, "state": "ready", "why": ""}))
    (folder / "2.json").write_text("{")
    living = Heartbeat(str(tmp_path))
    living.beat("ready")
    Heartbeat(str(tmp_path), 3).begin()
    assert list(folder.glob("*.json")) == [living.path]


def test_check_imports_next_to_nothing() -> None:
    """`check` must answer within 150 ms: it loads neither the cache nor the event loop nor the database."""
    program = (
        "import runpy, sys; sys.argv = ['worker', 'check', '--json', '--data-dir', '/nonexistent']\n"
        "try: runpy.run_module('worker', run_name='__main__')\n"
        "except SystemExit as end: assert end.code == 1\n"
        "heavy = {'asyncio', 'cachebus.cache', 'redis', 'sqlalchemy', 'apscheduler', 'structlog'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", program], check=False, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
