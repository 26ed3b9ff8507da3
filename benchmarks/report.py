"""Figures of one run: a table to read, JSON to keep, the machine and the versions beside them."""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROUNDS = 5
"""Each figure is the median of so many rounds; contestants take turns within a round, so drift hits all alike."""


@dataclass
class Row:
    """One figure. `target` says what is wanted, in words; `ratio` is ours over theirs where that means something."""

    name: str
    value: float
    unit: str
    note: str = ""


@dataclass
class Report:
    """All figures of one benchmark."""

    title: str
    rows: list[Row] = field(default_factory=list)

    def add(self, name: str, value: float, unit: str, note: str = "") -> None:
        """Keep and print one figure."""
        row = Row(name, value, unit, note)
        self.rows.append(row)
        print(f"  {name:<58} {value:>12,.2f} {unit:<12} {note}", flush=True)

    def write(self, *packages: str) -> None:
        """Write JSON to `.data/benchmarks/` with machine and versions."""
        folder = Path(".data/benchmarks")
        folder.mkdir(parents=True, exist_ok=True)
        facts = {
            "title": self.title,
            "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "machine": f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}",
            "python": sys.version.split()[0],
            "versions": {name: installed(name) for name in packages},
            "rows": [asdict(row) for row in self.rows],
        }
        path = folder / f"{self.title}.json"
        path.write_text(json.dumps(facts, indent=1))
        print(f"  {facts['machine']}; python {facts['python']}; {facts['versions']}\n  written to {path}")


def installed(name: str) -> str:
    """Return the installed version, or 'not installed'."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


async def median_us(operations: int, *contestants: Callable[[], Awaitable[object]]) -> list[float]:
    """Return microseconds an operation for each contestant: they take turns, the median of ROUNDS counts."""
    times: list[list[float]] = [[] for _ in contestants]
    for _ in range(ROUNDS):
        for mine, contestant in zip(times, contestants, strict=True):
            started = time.perf_counter()
            await contestant()
            mine.append((time.perf_counter() - started) / operations * 1e6)
    return [statistics.median(mine) for mine in times]
