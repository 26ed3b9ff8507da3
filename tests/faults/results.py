"""The outcomes of the fault matrix, kept from one run to the next, and the page that is made of them."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from pathlib import Path

import msgspec

from tests.faults.matrix import FAULTS, UNBROKEN, Cell, Outcome


class Results:
    """Outcomes, one a line in a file where one is named: a run that was interrupted loses one cell."""

    def __init__(self, file: Path | None) -> None:
        self._file = file
        kept = file.read_bytes().splitlines() if file is not None and file.exists() else []
        self.outcomes = [msgspec.json.decode(line, type=Outcome) for line in kept]

    def of(self, cell: Cell, broken: str) -> Outcome | None:
        """Return what came of a cell, None where it was not run."""
        found = (outcome for outcome in self.outcomes if (outcome.cell, outcome.broken) == (cell, broken))
        return next(found, None)

    def add(self, outcome: Outcome) -> None:
        """Keep it."""
        self.outcomes.append(outcome)
        if self._file is not None:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with self._file.open("ab") as file:
                file.write(msgspec.json.encode(outcome) + b"\n")


def page(outcomes: Sequence[Outcome]) -> str:
    """Return the page of a whole run."""
    whole = [outcome for outcome in outcomes if outcome.broken == UNBROKEN]
    broken = [outcome for outcome in outcomes if outcome.broken != UNBROKEN]
    reads, changes, stale = (sum(getattr(outcome, name) for outcome in whole) for name in ("reads", "changes", "stale"))
    after, minutes = sum(outcome.after_stops for outcome in whole), sum(outcome.seconds for outcome in outcomes) / 60
    whole.sort(key=lambda outcome: list(FAULTS).index(outcome.cell.fault))
    rows = [
        f"| {outcome.cell.fault} | {outcome.cell.shape} | {outcome.cell.change} | {outcome.faults} "
        f"| {outcome.reads:,} | {outcome.after_stops:,} | {outcome.changes:,} | {outcome.errors} | {outcome.stale} |"
        for outcome in whole
    ]
    without = [
        f"| {outcome.cell.fault} | `{outcome.broken}` | {outcome.reads:,} | {outcome.changes:,} "
        f"| {outcome.stale:,} | {outcome.worst_ms:,.0f} ms |"
        for outcome in broken
    ]
    return f"""# The fault matrix

**{stale} stale reads of {reads:,}**, beside {changes:,} invalidations, in {len(whole)} cells.

Real processes read a database of versions through the cache while its rows change, and something breaks. A read is
stale if it returns a version older than an invalidation that had returned 250 ms before the read began. Each cell is
one fault, one way to read and one way to invalidate; every pair of two of them occurs.

- `aside` is `get`, load, `set` in seven ways: in one task, `gather`, `wait_for`, a TaskGroup, a background task,
  `shield`, and a consumer of a queue. `threads` and `forked` are the synchronous cache: a view, and `get`, load, `set`.
- Nothing is served from memory while Redis is unavailable (`CACHE_MAX_STALENESS=0`). *Errors* are calls that raised
  during the fault, as they should.
- Processes are stopped for 1 to 40 s. One that was stopped for less than two seconds cannot know it: for reads within
  the two seconds after such a stop (longer than 0.1 s) the bound is two seconds. A machine with more to do than it has
  cores stops processes too, the server among them. Those reads, {after:,} in all, are in the column *after stops*.

`python -m tests.faults`: {minutes:.0f} minutes, Python {platform.python_version()}, {os.cpu_count()} cores. A short \
form is part of the test suite.

| fault | reads by | change | times | reads | after stops | invalidations | errors | stale |
|---|---|---|---|---|---|---|---|---|
{chr(10).join(rows)}

## With a part of the rule taken out

The same harness finds what is missing, here with reads by a view and invalidation by key. `born` compares entries with
the last invalidation, `heard` asks the ledger when the journal is silent, `era` gives a server that lost writes a cold
cache.

| fault | without | reads | invalidations | stale | oldest by |
|---|---|---|---|---|---|
{chr(10).join(without)}
"""
