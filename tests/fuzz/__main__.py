"""The long form of the fuzzing: `python -m tests.fuzz --inputs 1000000 --seed 1 [--only NAME]`.

Hypothesis brings inputs, an equal share to each target; each is tried as it is, and damaged in fifty ways. Exits with 1
where something failed, and prints the input.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
import zlib
from collections.abc import Iterable

from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.fuzz.targets import TARGETS, Target, again

TIMES = 50
"""Each input of Hypothesis is tried as it is, and damaged so often less one."""


def fuzz(target: Target, inputs: int, number: int) -> int:
    """Give a target so many inputs; returns how many it got. Raises: what failed, with the input in a note."""
    tried = 0

    def attempt_one(value: object) -> None:
        try:
            target.check(value)
        except Exception as failure:
            failure.add_note(f"{target.name}: {value!r}")
            raise

    @seed(number)
    @settings(
        max_examples=-(-inputs // TIMES),
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(target.inputs)
    def attempt(value: object) -> None:
        nonlocal tried
        choose = random.Random(zlib.crc32(repr(value).encode()))  # noqa: S311 - damage that can be had again
        tried += TIMES
        attempt_one(value)
        for _ in range(TIMES - 1):
            attempt_one(again(value, choose))

    attempt()
    return tried


def fuzz_all(targets: Iterable[Target], inputs: int, number: int) -> bool:
    """Fuzz each, printing a line of it; returns whether all held."""
    held, total = True, 0
    for target in targets:
        began, tried, outcome = time.monotonic(), 0, "held"
        # Hypothesis stops when it believes that there is nothing new: then it begins again with other moments.
        while tried < inputs and outcome == "held":
            try:
                tried += fuzz(target, min(inputs - tried, 50_000), number + tried)
            except Exception as failure:  # noqa: BLE001 - whatever it is, it is what was looked for
                outcome, held = f"{type(failure).__name__}: {failure} {getattr(failure, '__notes__', '')}", False
        total += tried
        sys.stdout.write(f"{target.name:<10} {tried:>9,} inputs  {time.monotonic() - began:6.0f} s  {outcome}\n")
        sys.stdout.flush()
    sys.stdout.write(f"{total:,} inputs\n")
    return held


def main() -> int:
    """Fuzz what was asked for; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=1_000_000, help="in all; a million by default")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", action="append", default=[], choices=[target.name for target in TARGETS])
    asked = parser.parse_args()
    targets = [target for target in TARGETS if not asked.only or target.name in asked.only]
    return int(not fuzz_all(targets, -(-asked.inputs // len(targets)), asked.seed))


if __name__ == "__main__":
    sys.exit(main())
