"""Figures of one run: tables, JSON, a section of docs/reference/benchmarks.md; machine and versions beside them."""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchmarks import page
from benchmarks.turns import Cost

ROUNDS = 5
"""Of `median_us`. Contestants take turns within a round, so drift hits all alike."""
FOLDER = Path(".data/benchmarks")


@dataclass
class Row:
    """One figure. `note` says in words what it means."""

    name: str
    value: float
    unit: str
    note: str = ""


@dataclass
class Wanted:
    """A target, and what was found."""

    name: str
    found: float
    limit: float
    at_least: bool
    unit: str

    @property
    def met(self) -> bool:
        """Whether it is reached."""
        return self.found >= self.limit if self.at_least else self.found <= self.limit

    @property
    def line(self) -> str:
        """In words, for a table."""
        bound = "≥" if self.at_least else "≤"
        found = f"{self.found:,.2f}" if self.found < 10 else f"{self.found:,.0f}"
        return f"| {self.name} | {found} {self.unit} | {bound} {self.limit:g} | {'met' if self.met else '**missed**'} |"


@dataclass
class Table:
    """What one operation costs each contestant."""

    title: str
    costs: Mapping[str, Cost]
    ours: str
    """The row that the others' ratios are of."""
    note: str = ""
    chart: str = ""
    """The name of its picture, where it has one."""

    def lines(self) -> list[str]:
        """Return it as Markdown. Rows that cost less CPU than ours are marked."""
        ours = self.costs[self.ours]
        lines = ["| | client, µs | ± | server, µs | wall, µs | client, × ours |", "|---|---|---|---|---|---|"]
        for label, cost in self.costs.items():
            ratio = cost.over(ours)
            said = f"{ratio:.2f}" if ratio < 10 else f"{ratio:.0f}"
            said = f"**{said}**" if ratio < 0.95 and "cachebus" not in label else said
            figures = [number(cost.client_us), f"{cost.spread:.0%}", number(cost.server_us), number(cost.wall_us), said]
            lines.append(f"| {label} | {' | '.join(figures)} |")
        return lines


def number(value: float) -> str:
    """Return microseconds with as many digits as mean something."""
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:,.0f}"


@dataclass
class Report:
    """All figures of one benchmark."""

    title: str
    heading: str = ""
    """Of its section in the page; without one it has none."""
    rows: list[Row] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    wanted: list[Wanted] = field(default_factory=list)
    began_load: float = field(default_factory=lambda: os.getloadavg()[0])

    def add(self, name: str, value: float, unit: str, note: str = "") -> None:
        """Keep and print one figure."""
        self.rows.append(Row(name, value, unit, note))
        print(f"  {name:<58} {value:>12,.2f} {unit:<12} {note}", flush=True)

    def table(self, title: str, costs: Mapping[str, Cost], ours: str, note: str = "", chart: str = "") -> None:
        """Keep and print what an operation costs each contestant; *costs* begins with our rows."""
        made = Table(title, costs, ours, note, chart)
        self.tables.append(made)
        print(f"\n{title}\n" + "\n".join(made.lines()), flush=True)

    def want(self, name: str, found: float, limit: float, unit: str = "×", *, at_least: bool = False) -> None:
        """Keep and print whether a target is reached."""
        row = Wanted(name, found, limit, at_least, unit)
        self.wanted.append(row)
        print(row.line, flush=True)

    def write(self, *packages: str, versions: Mapping[str, str] | None = None) -> None:
        """Write JSON to `.data/benchmarks/` with machine and versions, and the section of the page."""
        FOLDER.mkdir(parents=True, exist_ok=True)
        known = {name: found for name in packages if (found := installed(name))} | dict(versions or {})
        facts = {
            "title": self.title,
            "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "machine": f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}",
            "load": [self.began_load, os.getloadavg()[0]],
            "python": sys.version.split()[0],
            "versions": known,
        }
        every = {
            "rows": [asdict(row) for row in self.rows],
            "tables": [
                {"title": table.title, "costs": {label: asdict(cost) for label, cost in table.costs.items()}}
                for table in self.tables
            ],
            "wanted": [asdict(row) | {"met": row.met} for row in self.wanted],
        }
        path = FOLDER / f"{self.title}.json"
        path.write_text(json.dumps(facts | every, indent=1))
        print(f"\n  {facts['machine']}; python {facts['python']}; {known}\n  written to {path}", flush=True)
        if self.heading and not os.environ.get("QUICK"):
            page.put(self.title, self._section(facts))

    def _section(self, facts: Mapping[str, object]) -> list[str]:
        began, ended = os.getloadavg()[0], self.began_load
        lines = [
            f"# {self.heading}",
            "",
            f"`make bench ARGS={self.title}`, one run, {facts['when']}: {facts['machine']}, Python {facts['python']};"
            f" load {min(began, ended):.1f} to {max(began, ended):.1f}.",
            page.wrapped(
                "Versions: " + ", ".join(f"{name} {is_}" for name, is_ in self._versions(facts).items()) + "."
            ),
            "",
        ]
        if self.wanted:
            lines += ["| | found | wanted | |", "|---|---|---|---|", *[row.line for row in self.wanted], ""]
        for table in self.tables:
            lines += [f"**{table.title}**{f': {table.note}' if table.note else ''}", ""]
            if table.chart:
                page.draw(table.chart, table.title, table.costs, table.ours)
                lines += [f"![{table.title}: CPU time of client and server](../images/{table.chart}.svg)", ""]
            lines += [*table.lines(), ""]
        if self.rows:
            lines += ["| | | | |", "|---|---|---|---|"]
            lines += [f"| {row.name} | {row.value:,.2f} | {row.unit} | {row.note} |" for row in self.rows]
        return lines

    def _versions(self, facts: Mapping[str, object]) -> dict[str, str]:
        found = facts["versions"]
        assert isinstance(found, dict)
        return found


def installed(name: str) -> str:
    """Return the installed version, or nothing: this project is not installed, it is the tree that runs."""
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


async def median_us(operations: int, *contestants: Callable[[], Awaitable[object]]) -> list[float]:
    """Return microseconds an operation for each contestant: they take turns, the median of ROUNDS counts."""
    times: list[list[float]] = [[] for _ in contestants]
    for _ in range(ROUNDS):
        for mine, contestant in zip(times, contestants, strict=True):
            started = time.perf_counter()
            await contestant()
            mine.append((time.perf_counter() - started) / operations * 1e6)
    return [statistics.median(mine) for mine in times]
