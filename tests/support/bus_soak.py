"""The crash harness at full size: `python -m tests.support.bus_soak [--kills 200] [--seed 1]`.

A hundred events, 25 plain messages and a share of every other fault for each kill -9 of the active worker; five minutes
at full size. Prints what was done, what was found, and every dead letter. Ends with 1 if an event was lost, written
twice or out of order. `--without-fence` takes the fence out, and has to end with 1.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time

from tests.support.bus_harness import crash

FAULTS = {"kill": 200, "stop": 20, "die": 10, "cut": 20, "swallow": 10}
EVENTS = 20_000


def main(kills: int, seed: int, *, fence: bool) -> int:
    """Run, print, and say by the exit code whether all was sound."""
    started = time.monotonic()
    faults = {kind: max(1, times * kills // FAULTS["kill"]) for kind, times in FAULTS.items()}
    events = EVENTS * kills // FAULTS["kill"]
    findings, harness = asyncio.run(crash(events=events, faults=faults, seed=seed, fence=fence))
    took = sorted(harness.takeovers_s)
    print(f"seed {seed}, {faults}, {time.monotonic() - started:.0f} s")  # noqa: T201 - the report
    print(  # noqa: T201 - the report
        f"published {findings.published}, {findings.plain} of them plainly, "
        f"lost {findings.lost}, twice {findings.twice}, invented {findings.invented}, "
        f"out of order {findings.disordered} (plain {findings.plain_disordered}), "
        f"not invalidated {findings.not_invalidated}, condemned and replayed {findings.condemned}"
    )
    for letter in findings.letters:
        print(f"dead letter: {letter.kind}, {letter.reason}, {letter.position} {letter.payload!r}")  # noqa: T201
    print(  # noqa: T201 - the report
        f"takeover: p50 {statistics.median(took):.2f} s, p99 {took[int(len(took) * 0.99)]:.2f} s, most {took[-1]:.2f} s"
    )
    return 0 if findings.sound else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=FAULTS["kill"])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--without-fence", action="store_true")
    asked = parser.parse_args()
    sys.exit(main(asked.kills, asked.seed, fence=not asked.without_fence))
