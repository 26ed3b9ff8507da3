"""This tree beside another commit of it: `make bench AGAINST=<commit>`.

Both run `everyday.py` on one server, in turn, so that the machine's drift hits both alike. CPU time is compared,
the medians of the rounds; a row is marked where it is slower by more than 5 % and by more than the rounds spread.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

from cachebus.testing.server import PrivateServer

ROOT = Path(__file__).parents[1]
PROGRAM = Path(__file__).with_name("everyday.py")
ROUNDS = 7
WORSE = 1.05

Rows = dict[str, list[tuple[float, float]]]


def checkout(commit: str) -> Path:
    """Return a folder with the tree of *commit*, made once."""
    digest = subprocess.run(
        ["git", "rev-parse", "--short=12", f"{commit}^{{commit}}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if digest.returncode:
        sys.exit(f"AGAINST: {commit!r} is no commit of this repository")
    folder = ROOT / ".data" / "against" / digest.stdout.strip()
    if not folder.exists():
        folder.mkdir(parents=True)
        archive = subprocess.run(["git", "archive", digest.stdout.strip()], cwd=ROOT, capture_output=True, check=True)
        subprocess.run(["tar", "-x"], cwd=folder, input=archive.stdout, check=True)
    return folder


def one_round(tree: Path, url: str) -> dict[str, tuple[float, float]]:
    """Run the program once on *tree*."""
    environment = {**os.environ, "PYTHONPATH": str(tree), "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [sys.executable, "-P", str(PROGRAM), url],
        cwd=tree,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{tree} failed:\n{done.stderr[-3000:]}")
    said: dict[str, tuple[float, float]] = json.loads(done.stdout.splitlines()[-1])
    return said


def main() -> None:
    """Measure both, print the table."""
    parser = argparse.ArgumentParser(prog="make bench AGAINST=", description=__doc__)
    parser.add_argument("commit")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    asked = parser.parse_args()
    trees = {"before": checkout(asked.commit), "now": ROOT}
    found: dict[str, Rows] = {name: {} for name in trees}
    with PrivateServer.start("appendonly no", 'save ""') as server:
        for number in range(asked.rounds + 1):
            order = list(trees) if number % 2 else list(reversed(trees))
            for name in order:
                for row, cost in one_round(trees[name], server.url).items():
                    if number:  # the first round warms the machine
                        found[name].setdefault(row, []).append((cost[0], cost[1]))
            print(f"round {number} of {asked.rounds}", file=sys.stderr, flush=True)
    print(
        f"CPU time an operation, us: client, server in brackets; median of {asked.rounds} rounds, spread of the client"
    )
    print(f"{'':<40}{'before':>18}{'now':>18}{'ratio':>8}{'spread':>9}")
    for row in found["now"]:
        print(_line(row, found["before"].get(row, []), found["now"][row]))


def _line(row: str, before: list[tuple[float, float]], now: list[tuple[float, float]]) -> str:
    client, server = (statistics.median(each) for each in zip(*now, strict=True))
    if not before:
        return f"{row:<40}{'-':>18}{f'{client:.2f} ({server:.1f})':>18}"
    client_then, server_then = (statistics.median(each) for each in zip(*before, strict=True))
    ratio, spread = client / client_then, max(_spread(now), _spread(before))
    mark = "  slower" if ratio > max(WORSE, 1 + spread) else ""
    then = f"{client_then:.2f} ({server_then:.1f})"
    return f"{row:<40}{then:>18}{f'{client:.2f} ({server:.1f})':>18}{ratio:>8.2f}{spread:>8.0%} {mark}"


def _spread(costs: list[tuple[float, float]]) -> float:
    """Return how far the middle half of the rounds spreads around the median, as a share of it."""
    ours = sorted(cost[0] for cost in costs)
    quarter = len(ours) // 4
    return (ours[-1 - quarter] - ours[quarter]) / statistics.median(ours)


if __name__ == "__main__":
    main()
