"""Workers as processes, whose holder of a run is killed or frozen again and again. Were there double starts?

    python -m tests.support.schedules_soak [--kills 200] [--workers 3] [--lease 2s] [--without-claim]

Prints what it did and what it found; exits with 1 if anything was started that should not have been. Takes about three
seconds a kill. The suite runs a few of them (`test_processes.py`).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import secrets
import signal
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from cachebus.durations import milliseconds
from cachebus.errors import ServerError
from cachebus.schedules.scheduler import Scheduler
from cachebus.schedules.store import JobStatus
from tests.support.process_faults import SkewedClocks
from tests.support.scheduled_workers import begin_long_ago, until
from tests.support.schedules_worker import jobs
from tests.support.topologies import Deployment, deployed

ROOT = Path(__file__).parents[2]
SECOND_US = 1_000_000


@dataclass
class Findings:
    """What was done to the workers, and what they started: fire times and fences by job."""

    kills: int = 0
    freezes: int = 0
    deaths: int = 0
    unaccounted: int = 0
    """Fire times of which nothing is known: nobody looked for a whole second."""
    others: list[str] = field(default_factory=list)
    """What else was done."""
    starts: dict[str, dict[int, list[int]]] = field(default_factory=dict)

    @property
    def wrong(self) -> list[str]:
        """Everything that should not have been."""
        found = []
        for name, most in (("again", 2), ("never", 1)):
            for fire, fences in self.starts.get(name, {}).items():
                if len(fences) > most:
                    found.append(f"{name}@{fire} was started {len(fences)} times")
                if len(set(fences)) != len(fences):
                    found.append(f"{name}@{fire} was started twice with one fence: {fences}")
        if self.late > self.freezes:
            found.append(f"{self.late} starts came after their successors', with {self.freezes} freezes")
        if self.twice > self.kills + self.freezes:
            found.append(f"{self.twice} second starts after {self.kills} kills and {self.freezes} freezes")
        return found

    @property
    def late(self) -> int:
        """How many fire times noted a start after a later one: of a worker that was frozen between claim and body."""
        return sum(sorted(fences) != fences for fires in self.starts.values() for fences in fires.values())

    @property
    def started(self) -> int:
        """How many fire times were started."""
        return sum(len(fires) for fires in self.starts.values())

    @property
    def twice(self) -> int:
        """How many fire times were started once more."""
        return sum(len(fences) > 1 for fires in self.starts.values() for fences in fires.values())

    def __str__(self) -> str:
        return (
            f"{self.kills} kills, {self.freezes} freezes, {self.deaths} deaths found; {self.started} fire times "
            f"started, {self.twice} of them once more, {self.unaccounted} unaccounted for; {len(self.wrong)} wrong"
        )


class Crew:
    """Worker processes; one that is killed is replaced."""

    def __init__(self, environment: Callable[[], dict[str, str]], *arguments: str) -> None:
        self._environment = environment
        self._arguments = arguments
        self._processes: dict[int, subprocess.Popen[bytes]] = {}

    def hire(self) -> None:
        """Start one more."""
        command = [sys.executable, "-m", "tests.support.schedules_worker", *self._arguments]
        environment = os.environ | self._environment()
        pipes = {"stdin": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        process = subprocess.Popen(command, cwd=ROOT, env=environment, **pipes)  # type: ignore[call-overload] # of pipes
        self._processes[process.pid] = process

    def has(self, name: str) -> bool:
        """Return whether a worker of this name is alive."""
        return name.isdigit() and int(name) in self._processes

    def kill(self, pid: int) -> None:
        """End one without a word, and replace it."""
        _end(self._processes.pop(pid))
        self.hire()

    def dismiss(self) -> None:
        """End all of them."""
        for process in self._processes.values():
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.communicate()


async def soak(
    deployment: Deployment,
    *,
    kills: int,
    workers: int = 3,
    lease_ms: int = 2_000,
    options: tuple[str, ...] = (),
    seed: int = 0,
    others: tuple[str, ...] = (),
) -> Findings:
    """Kill or freeze the holder of a run so many times; return what was found. *others*: see `_break`."""
    draw = random.Random(kills + seed)  # noqa: S311 - which of them, not a secret
    deployment.namespace = f"soak{secrets.token_hex(4)}"
    with tempfile.TemporaryDirectory() as folder:
        clocks = SkewedClocks(Path(folder), draw)
        crew = Crew(
            lambda: deployment.environment | clocks.environment(),
            *(deployment.url, deployment.namespace, folder, str(lease_ms), *options),
        )
        async with deployment.client() as client:
            await begin_long_ago(client)
            witness = Scheduler(client, jobs(Path(folder)))
            findings = Findings()
            try:
                for _ in range(workers):
                    crew.hire()
                for at in range(kills):
                    await _disturb(crew, witness, draw, lease_ms, findings)
                    if at < len(others):
                        findings.others.append(await _break(others[at], deployment, clocks, draw))
                await until(lambda: client.store.up, "the server is back", 60)
                for job in witness.jobs.values():
                    await witness.pause(job.name)
                await until(lambda: _idle(witness), "the end of all runs", 60)
            finally:
                crew.dismiss()
            findings.deaths = sum(status.deaths for status in await witness.status())
            findings.starts = _starts(Path(folder) / "starts")
            findings.unaccounted = await _unaccounted(witness, findings)
    return findings


async def _break(what: str, deployment: Deployment, clocks: SkewedClocks, draw: random.Random) -> str:
    """Break what no worker holds: the server dies, is full, closes connections, or every wall clock jumps."""
    if what == "die":
        return await deployment.die(draw)
    if what == "fill":
        await deployment.fill(draw.uniform(0.5, 2.0))
        return "maxmemory reached"
    if what == "cut":
        await deployment.cut()
        return "connections closed"
    return "clocks jumped" if clocks.jump() else "no clock jumped"


async def _disturb(crew: Crew, witness: Scheduler, draw: random.Random, lease_ms: int, findings: Findings) -> None:
    """Wait for a run, and kill or freeze whoever holds it."""
    name = draw.choice(("again", "never"))
    seen: list[int] = []

    async def held() -> bool:
        found: list[JobStatus] = []
        with suppress(ServerError):
            found = await witness.status()
        status = next((status for status in found if status.name == name), None)
        if status is not None and status.state in ("claimed", "running") and crew.has(status.holder):
            seen.append(int(status.holder))
        return bool(seen)

    await until(held, f"a run of {name}", 60)
    await asyncio.sleep(draw.random() * 0.2)
    if draw.random() < 0.7:
        crew.kill(seen[0])
        findings.kills += 1
    else:
        os.kill(seen[0], signal.SIGSTOP)
        await asyncio.sleep(1.5 * lease_ms / 1000)
        os.kill(seen[0], signal.SIGCONT)
        findings.freezes += 1


async def _idle(witness: Scheduler) -> bool:
    with suppress(ServerError):
        return all(status.state not in ("claimed", "running") for status in await witness.status())
    return False


def _starts(trace: Path) -> dict[str, dict[int, list[int]]]:
    starts: dict[str, dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
    for line in trace.read_text(encoding="utf-8").splitlines():
        name, fire, fence, _pid = line.split()
        starts[name][int(fire)].append(int(fence))
    return starts


async def _unaccounted(witness: Scheduler, findings: Findings) -> int:
    """Count fire times between the first and the last that were neither started nor refused."""
    missing = 0
    for status in await witness.status():
        fires = findings.starts.get(status.name, {})
        if fires:
            slots = (max(fires) - min(fires)) // SECOND_US + 1
            missing += max(0, slots - len(fires) - status.overlaps - status.misfires)
    return missing


def main() -> int:
    """Do it by hand."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.schedules_soak", description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--lease", default="2s")
    parser.add_argument("--without-claim", action="store_true", help="show that it can fail")
    asked = parser.parse_args()

    async def run() -> Findings:
        options = ("--without-claim",) if asked.without_claim else ()
        given = {"workers": asked.workers, "lease_ms": milliseconds(asked.lease, "--lease"), "options": options}
        async with deployed("one") as deployment:
            return await soak(deployment, kills=asked.kills, **given)

    findings = asyncio.run(run())
    for line in (*findings.wrong[:20], str(findings)):
        sys.stdout.write(line + "\n")
    return 1 if findings.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
