"""Contestants take turns: each in a process and, where it must, an environment of its own, all on one server.

A round gives each one turn; the first warms everything and does not count. What counts is CPU time, of the client's
process and of the server, so that other programs on the machine disturb little; the clock on the wall is beside it.
A ratio is the median of the ratios of each round, in which the machine was about the same for both. What the servers
spend while nobody asks them, and on saying what they have spent, is measured before and taken off.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from cachebus.testing.server import PrivateServer

QUICK = bool(os.environ.get("QUICK"))
ROUNDS = 3 if QUICK else 9
IDLE_S = 0.2 if QUICK else 1.0
PEERS = Path(__file__).parent / "peers"


class Contestant(NamedTuple):
    """Who takes part: what it prepares, where, with what."""

    label: str
    module: str
    """In `benchmarks/peers`; `.venv-bench` or *environment* has what it imports."""
    name: str
    given: dict[str, Any] = {}  # noqa: RUF012 - a default nobody changes
    environment: str = ""


@dataclass
class Cost:
    """What one operation costs, microseconds: medians of the rounds."""

    client_us: float
    server_us: float
    wall_us: float
    spread: float
    """Of the client's: how far the middle half of the rounds lies around the median, as a share of it."""
    rounds_us: list[float]
    """The client's, of each round."""

    @property
    def cpu_us(self) -> float:
        """Client and server together."""
        return self.client_us + self.server_us

    def over(self, other: Cost) -> float:
        """Return this client's time over the other's: the median of the rounds in which both took turns."""
        if len(self.rounds_us) != len(other.rounds_us):  # not of one run
            return self.client_us / other.client_us
        return statistics.median(mine / theirs for mine, theirs in zip(self.rounds_us, other.rounds_us, strict=True))


@dataclass
class Turn:
    """A contestant's process, and what its works cost in each round."""

    contestant: Contestant
    process: subprocess.Popen[str]
    costs: dict[str, list[tuple[float, float, float]]] = field(default_factory=dict)
    works: tuple[str, ...] = ()

    def open(self, url: str) -> None:
        """Have it prepare."""
        contestant = self.contestant
        self.works = tuple(self.ask(open=contestant.name, given={"url": url, **contestant.given})["works"])

    def ask(self, **order: Any) -> dict[str, Any]:
        """Give an order and return the answer."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        answer: dict[str, Any] = json.loads(line) if line else {"error": "its process ended"}
        if "error" in answer:
            raise RuntimeError(f"{self.contestant.label}: {answer['error']}")
        return answer

    def take(self, work: str, operations: int, servers: Sequence[PrivateServer], idle: float, asking_s: float) -> None:
        """Run *work* once and keep what one of its *operations* cost.

        *idle*: the servers' share of a core at rest; *asking_s*: what it costs them to say what they have spent.
        """
        before = cpu_s(servers)
        answer = self.ask(run=work)
        server = max(0.0, cpu_s(servers) - before - asking_s - idle * answer["wall_s"])
        cost = [second / operations * 1e6 for second in (answer["client_s"], server, answer["wall_s"])]
        self.costs.setdefault(work, []).append((cost[0], cost[1], cost[2]))

    def cost(self, work: str) -> Cost:
        """Return the medians of a work; the first round does not count."""
        rounds = self.costs[work][1:] or self.costs[work]
        client, server, wall = (statistics.median(part) for part in zip(*rounds, strict=True))
        every = [client for client, _, _ in rounds]
        ours, quarter = sorted(every), len(every) // 4
        return Cost(client, server, wall, (ours[-1 - quarter] - ours[quarter]) / client if client else 0.0, every)


def cpu_s(servers: Sequence[PrivateServer]) -> float:
    """Return the CPU time the servers have spent, seconds."""
    total = 0.0
    for server in servers:
        lines = server.ask("INFO", "cpu").decode().splitlines()
        words = dict(line.split(":", 1) for line in lines if ":" in line)
        total += float(words["used_cpu_user"]) + float(words["used_cpu_sys"])
    return total


def idle_share(servers: Sequence[PrivateServer]) -> float:
    """Return the share of a core that the servers spend while nobody asks them."""
    before, began = cpu_s(servers), time.monotonic()
    time.sleep(IDLE_S)
    return (cpu_s(servers) - before) / (time.monotonic() - began)


def asking_cost_s(servers: Sequence[PrivateServer]) -> float:
    """Return what it costs the servers to say what they have spent, seconds."""
    costs = []
    for _ in range(9):
        before = cpu_s(servers)
        costs.append(cpu_s(servers) - before)
    return statistics.median(costs)


def interpreter(environment: str) -> str:
    """Return the Python of an environment; one that is none of ours is made when it is first used."""
    if not environment:
        return sys.executable
    place, wanted = Path(".data/bench") / environment, (PEERS / f"{environment}.txt").read_text()
    mark = place / "ready"
    if not mark.exists() or mark.read_text() != wanted:
        uv = [sys.executable, "-m", "uv", "--quiet"]
        subprocess.run([*uv, "venv", "--clear", place], check=True)
        subprocess.run(
            [*uv, "pip", "install", "-p", place / "bin/python", "-r", PEERS / f"{environment}.txt"], check=True
        )
        mark.write_text(wanted)
    return str(place / "bin/python")


def versions(environment: str, *packages: str) -> dict[str, str]:
    """Return what versions an environment has."""
    program = "import sys; from importlib.metadata import version; print(*map(version, sys.argv[1:]))"
    done = subprocess.run(
        [interpreter(environment), "-c", program, *packages], check=True, capture_output=True, text=True
    )
    return {
        f"{name} ({environment})" if name == "redis" else name: found
        for name, found in zip(packages, done.stdout.split(), strict=True)
    }


@contextmanager
def entered(contestants: Sequence[Contestant]) -> Iterator[list[Turn]]:
    """Start the contestants' processes; end them with the block."""
    with ExitStack() as stack:
        folder = Path(".data/benchmarks")
        folder.mkdir(parents=True, exist_ok=True)
        log = stack.enter_context((folder / "contestants.log").open("a"))
        turns = []
        for contestant in contestants:
            command = [interpreter(contestant.environment), "-W", "ignore", PEERS / f"{contestant.module}.py"]
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True)
            stack.callback(process.wait)
            stack.callback(process.kill)
            turns.append(Turn(contestant, process))
        yield turns


def in_turns(
    servers: Sequence[PrivateServer],
    contestants: Sequence[Contestant],
    works: dict[str, int],
    *,
    anew: bool = False,
    rounds: int = ROUNDS,
) -> dict[str, dict[str, Cost]]:
    """Have each contestant run its *works* (name: operations) in turn; returns costs by label and work.

    *anew*: prepare before each turn, on an empty server, and close after it. A work that a contestant does not have is
    left out.
    """
    with entered(contestants) as turns:
        idle, asking_s = 0.0, asking_cost_s(servers)
        for number in range(rounds + 1):
            if number == 1 and not anew:
                idle = idle_share(servers)
            for turn in turns if number % 2 else reversed(turns):
                if anew or not number:
                    if anew:
                        for server in servers:
                            server.ask("FLUSHALL")
                    turn.open(servers[0].url)
                for work, operations in works.items():
                    if work in turn.works:
                        turn.take(work, operations, servers, idle, asking_s)
                if anew:
                    turn.ask(close=True)
        return {
            turn.contestant.label: {work: turn.cost(work) for work in works if work in turn.costs} for turn in turns
        }
