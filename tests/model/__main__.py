"""The long form of the model: `python -m tests.model`. Prints states, depth, seconds and memory of each walk.

python -m tests.model                          every beginning to 70,000 states or more, then 1,000 schedules
python -m tests.model --break gap              what is found without a part of the rule
python -m tests.model --only holding --states 300000
"""

from __future__ import annotations

import argparse
import sys
import time

from tests.model.beginnings import BEGINNINGS
from tests.model.exhaust import walk
from tests.model.world import PARTS, schedule


def main() -> int:
    """Walk and run; return how many ended with a stale read."""
    parser = argparse.ArgumentParser(prog="tests.model", description="The freshness rule, walked exhaustively.")
    parser.add_argument("--only", choices=BEGINNINGS, action="append", help="walk from here alone")
    parser.add_argument("--states", type=int, default=70_000, help="states to meet from each beginning")
    parser.add_argument("--depth", type=int, default=20, help="steps at most")
    parser.add_argument("--schedules", type=int, default=1_000, help="random schedules")
    parser.add_argument("--steps", type=int, default=1_500, help="steps of each")
    parser.add_argument("--break", dest="off", choices=PARTS, action="append", default=[], help="leave a part out")
    given = parser.parse_args()
    stale = states = 0
    print(f"{'beginning':12} {'depth':>5} {'states':>10} {'seconds':>8} {'GB':>5}  stale read")
    for name in given.only or BEGINNINGS:
        walked = walk(BEGINNINGS[name], given.depth, given.off, most=given.states)
        stale, states = stale + bool(walked.violation), states + walked.states
        figures = f"{walked.depth:5} {walked.states:10,} {walked.seconds:8.1f} {walked.gigabytes:5.2f}"
        print(f"{name:12} {figures}  {walked.violation or 'none'}", flush=True)
    print(f"{states:,} states in all")
    began = time.monotonic()
    found = [seed for seed in range(given.schedules) if schedule(seed, given.steps, given.off)]
    print(
        f"{given.schedules:,} schedules of {given.steps:,} steps: {len(found)} with a stale read, "
        f"{time.monotonic() - began:.0f} s"
    )
    return stale + len(found)


if __name__ == "__main__":
    sys.exit(bool(main()))
