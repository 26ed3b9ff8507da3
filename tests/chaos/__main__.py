"""Everything that is promised, attacked by one tool: random faults under load, and checkers that trust nobody.

python -m tests.chaos                              each harness for a minute
python -m tests.chaos --minutes 10 --seed 7        longer, with other moments
python -m tests.chaos --only bus --only freshness  two of them
python -m tests.chaos --topology cluster           on another deployment; `all`: on each, one after the other
python -m tests.chaos --break                      each with the part that it tests taken out: it must find something

Prints a table, keeps the results as JSON with `--json FILE`, and exits with 1 where something was wrong; with
`--break`, where nothing was. What this machine lacks, and was
therefore not injected, is said. Part of the repository, not of the wheel.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import msgspec

from tests.chaos.harness import Attack, Findings, Harness
from tests.chaos.rounds import HARNESSES
from tests.support.topologies import TOPOLOGIES, Lacking


class Result(msgspec.Struct):
    """What came of a harness."""

    name: str
    promise: str
    seed: int
    without: str
    """The part that was taken out; '' for none."""
    rounds: int
    seconds: float
    counts: dict[str, int]
    faults: dict[str, int]
    wrong: list[str]
    topology: str = "one"
    lacking: list[str] = []
    """What this machine has not, and was therefore not injected."""

    @property
    def as_it_should_be(self) -> bool:
        """Whether nothing was wrong, or, with the part taken out, something was."""
        return bool(self.wrong) == bool(self.without)


async def attack(harness: Harness, minutes: float, seed: int, *, broken: bool = False, topology: str = "one") -> Result:
    """Run rounds of a harness for so long, one at least; broken, until something is found."""
    findings, began, rounds = Findings(), time.monotonic(), 0
    while not rounds or time.monotonic() < began + minutes * 60:
        draw = random.Random(f"{seed} {harness.name} {rounds}")  # noqa: S311 - moments
        try:
            findings.add(await harness.round(Attack(draw, broken, topology)))
        except Lacking as missing:
            findings.lacking.add(str(missing))
            break
        except Exception as never:  # noqa: BLE001 - what a round does not survive is what was looked for
            findings.wrong.append(f"round {rounds}: {type(never).__name__}: {never}")
        rounds += 1
        if broken and findings.wrong:
            break
    seconds, without = time.monotonic() - began, harness.without if broken else ""
    done = (findings.counts, findings.faults, findings.wrong)
    lacking = sorted(findings.lacking)
    return Result(harness.name, harness.promise, seed, without, rounds, seconds, *done, topology, lacking)


def table(results: Iterable[Result]) -> str:
    """Return the results as a table of Markdown."""
    lines = ["| harness | on | rounds | seconds | counted | faults | wrong |", "|---|---|---|---|---|---|---|"]
    for each in results:
        named = f"{each.name}, without {each.without}" if each.without else each.name
        counted, faults = _listed(each.counts), _listed(each.faults)
        done = (each.topology, each.rounds, f"{each.seconds:.0f}", counted, faults, len(each.wrong))
        lines.append(f"| {named} | {' | '.join(map(str, done))} |")
    return "\n".join(lines)


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in Counter(counts).items()) or "none"


def wanted(only: Iterable[str], topology: str) -> list[tuple[Harness, str]]:
    """Return what is to be run: where a harness needs no server, or brings its own, on one node alone."""
    shapes = list(TOPOLOGIES) if topology == "all" else [topology]
    return [
        (harness, shape)
        for shape in shapes
        for harness in HARNESSES
        if (not only or harness.name in only) and shape in harness.topologies
    ]


def main() -> int:
    """Attack what was asked for; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [harness.name for harness in HARNESSES]
    parser.add_argument("--minutes", type=float, default=1.0, help="for each harness; 1 by default")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", action="append", choices=names, default=[], metavar="NAME", help=", ".join(names))
    shapes = ", ".join(f"{name} ({what})" for name, what in TOPOLOGIES.items())
    parser.add_argument("--topology", choices=[*TOPOLOGIES, "all"], default="one", help=shapes)
    parser.add_argument("--break", dest="broken", action="store_true", help="take out the part that each tests")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the results here")
    asked = parser.parse_args()
    results: list[Result] = []
    for harness, topology in wanted(asked.only, asked.topology):
        result = asyncio.run(attack(harness, asked.minutes, asked.seed, broken=asked.broken, topology=topology))
        results.append(result)
        told = [*result.wrong[:5], *(f"not injected, for want of {what}" for what in result.lacking)]
        sys.stderr.write("".join(f"{result.name} on {topology}: {line}\n" for line in told))
        if asked.json is not None:
            asked.json.parent.mkdir(parents=True, exist_ok=True)
            asked.json.write_bytes(msgspec.json.format(msgspec.json.encode(results)) + b"\n")
    sys.stdout.write(table(results) + "\n")
    return int(not all(result.as_it_should_be for result in results))


if __name__ == "__main__":
    sys.exit(main())
