"""What it costs to start: a worker of a new application until it is ready, beside the import of the application."""

from __future__ import annotations

import os
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.report import Report
from cachebus.testing.server import PrivateServer

ROUNDS = 7
FIRST_READ = (
    "import asyncio\nfrom cachebus import Cache\ncache = Cache.memory()\n"
    "@cache.view('answer', ttl='1m')\nasync def answer() -> int:\n    return 42\nasyncio.run(answer())"
)


def cost(command: list[str], folder: Path, url: str, until: str = "") -> tuple[float, float]:
    """Run a command to its end, or to the first line with *until* in it. Returns seconds of CPU and on the clock.

    The signal, the drain and the exit that follow are part of the CPU time.
    """
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    environment = {"PATH": os.environ["PATH"], "REDIS_URL": url, "PYTHONPATH": f"{Path.cwd()}:{folder}"}
    process = subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    with process:
        for line in process.stdout:
            if until and until in line:
                break
        took = time.perf_counter() - began
        if until:
            process.send_signal(signal.SIGTERM)
            process.stdout.read()
    assert process.returncode == 0, f"{command} ended with {process.returncode}"
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime, took


def main() -> None:
    """Measure in turns."""
    report = Report("start", "Start")
    python = sys.executable
    commands = {
        "bare interpreter": ([python, "-c", "pass"], ""),
        "first read of a cache in memory": ([python, "-c", FIRST_READ], ""),
        "import of the application": ([python, "-c", "import views, handlers, schedules"], ""),
        "worker, until ready": ([python, "-m", "cachebus.worker", "worker"], "worker ready"),
    }
    cpu: dict[str, list[float]] = {name: [] for name in commands}
    wall: dict[str, list[float]] = {name: [] for name in commands}
    with tempfile.TemporaryDirectory() as folder, PrivateServer.start("appendonly no") as server:
        subprocess.run([python, "-m", "cachebus.worker", "new", f"{folder}/shop"], check=True, capture_output=True)
        for number in range(ROUNDS + 1):
            for name, (command, until) in commands.items():
                spent, took = cost(command, Path(folder, "shop"), server.url, until)
                if number:  # the first round compiles
                    cpu[name].append(spent)
                    wall[name].append(took)
    for name in commands:
        report.add(name, statistics.median(cpu[name]) * 1000, "ms CPU", f"{statistics.median(wall[name]):.2f} s")
    least = {name: min(spent) for name, spent in cpu.items()}
    memory = (least["first read of a cache in memory"] - least["bare interpreter"]) * 1000
    beside = (least["worker, until ready"] - least["import of the application"]) * 1000
    report.want("worker until ready, and its exit, beside the import of the application", beside, 350, "ms CPU")
    report.want("`from cachebus import Cache`, first read in memory mode", memory, 150, "ms CPU")
    report.write("msgspec", "structlog", "apscheduler")


if __name__ == "__main__":
    main()
