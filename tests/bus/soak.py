"""The crash harness at full size: `python tests/bus/soak.py [EVENTS]`. Prints what was done and what was found.

20,000 events, 200 times kill -9 of the active worker, and every other fault; about ten minutes. Ends with 1 if an event
was lost, written twice or out of order. `FENCE=off` in the environment takes the fence out, and has to end with 1.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import time

from harness_bus import crash

FAULTS = {"kill": 200, "stop": 20, "restart": 10, "cut": 20, "swallow": 10}
EVENTS = 20_000


def main(events: int) -> int:
    """Run, print, and say by the exit code whether all was sound."""
    started = time.monotonic()
    faults = {kind: max(1, times * events // EVENTS) for kind, times in FAULTS.items()}
    findings, harness = asyncio.run(crash(events=events, faults=faults, fence=os.environ.get("FENCE") != "off"))
    took = sorted(harness.takeovers_s)
    print(f"{faults}, {time.monotonic() - started:.0f} s")  # noqa: T201 - the report
    print(  # noqa: T201 - the report
        f"published {findings.published}, lost {len(findings.lost)}, twice {len(findings.twice)}, "
        f"invented {len(findings.invented)}, out of order {findings.disordered}, "
        f"not invalidated {len(findings.not_invalidated)}, dead letters {findings.dead_letters}"
    )
    print(  # noqa: T201 - the report
        f"takeover: p50 {statistics.median(took):.2f} s, p99 {took[int(len(took) * 0.99)]:.2f} s, most {took[-1]:.2f} s"
    )
    return 0 if findings.sound else 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else EVENTS))
