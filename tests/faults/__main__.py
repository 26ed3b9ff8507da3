"""The whole fault matrix, and its page.

python -m tests.faults                                          all of it: about an hour on two idle cores
python -m tests.faults --results build/faults --only key        what has "key" in its name; outcomes are kept in a file
python -m tests.faults --results build/faults --write docs/reference/fault-matrix.md         what is missing there

First every cell, in which nothing may be stale; then each fault once with the part of the rule that it needs taken out,
in which something must be. Exits 1 where either does not hold. What the file of results has is not run again.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from tests.faults.matrix import FAULTS, LONG, UNBROKEN, Cell, Outcome, cells, run
from tests.faults.results import Results, page

TRIES = 3
"""A broken rule shows by chance: it is looked for so often."""


async def main() -> int:
    """Run what was asked for; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", metavar="TEXT", help="only cells whose name has this in it")
    parser.add_argument("--results", type=Path, metavar="FILE", help="keep outcomes here, and run only what is missing")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="write the table to this page")
    asked = parser.parse_args()
    results = Results(asked.results)
    wanted = [
        *((cell, UNBROKEN) for cell in cells()),
        *((Cell("view", "key", fault), broken.mend) for fault, broken in FAULTS.items()),
    ]
    for cell, broken in wanted:
        if asked.only in str(cell) and results.of(cell, broken) is None:
            outcome = await look(cell, broken, asked.seed)
            say(outcome)
            results.add(outcome)
    if asked.write is not None:
        missing = [cell for cell, broken in wanted if results.of(cell, broken) is None]
        if missing:
            parser.error(f"no page yet: {len(missing)} of {len(wanted)} cells were not run, the first is {missing[0]}")
        asked.write.write_text(page(results.outcomes))
    return int(not all(outcome.as_it_should_be for outcome in results.outcomes))


async def look(cell: Cell, broken: str, seed: int) -> Outcome:
    """Run a cell; where the rule is broken, until that shows."""
    for attempt in range(TRIES):
        outcome = await run(cell, LONG, seed=seed + attempt, broken=broken)
        if outcome.stale or broken == UNBROKEN:
            break
    return outcome


def say(outcome: Outcome) -> None:
    """Print one line, and the traces of what must not be."""
    note = "" if outcome.broken == UNBROKEN else f"without {outcome.broken!r}"
    lines = [
        f"{outcome.cell!s:<45} reads {outcome.reads:>6,}  after stops {outcome.after_stops:>6,}"
        f"  changes {outcome.changes:>4}  faults {outcome.faults:>2}  errors {outcome.errors:>3}"
        f"  stale {outcome.stale:>4}  worst {outcome.worst_ms:6.0f} ms  {outcome.seconds:5.1f} s  {note}",
        *(f"    {trace}" for trace in outcome.traces if not outcome.as_it_should_be),
    ]
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
