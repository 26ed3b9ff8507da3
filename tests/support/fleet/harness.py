"""Four workers, four shards, four applications, and everything that can go wrong with them at once.

The workers are `cachebus worker`, as a platform runs them: one that ends is started again. Nothing is made shorter for
the harness, so a worker that is stopped for longer than its lease is stopped for more than five seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
import secrets
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from cachebus.bus.dead_letters import DeadLetters, every_letter
from cachebus.bus.engine.consumer import LEASE
from cachebus.bus.engine.takeover import MOST_CRASHES
from cachebus.bus.events import shard_of
from cachebus.bus.letters import Letter
from cachebus.durations import milliseconds
from cachebus.errors import ServerError
from cachebus.redis.client import Client
from cachebus.testing.server import PrivateServer
from tests.support.fleet.checker import MOST_SAID, Event, check_events, raised, stale_reads
from tests.support.fleet.notes import Accepted, AnyNote, Began, Invalidated, Past, Read
from tests.support.fleet.shape import APPLICATIONS, QUIET, READY, SHARDS, WORKERS, Changed
from tests.support.fleet.witness import Witness
from tests.support.serving import running
from tests.support.topologies import UNASKED, Deployment, deployed
from tests.support.waiting import until
from tests.support.worker_program import ROOT

STARTED = "worker started"
DOMAIN = "tests.support.fleet.domain"
LONGER_THAN_A_LEASE_S = (milliseconds(LEASE, "LEASE") / 1000 + 0.5, milliseconds(LEASE, "LEASE") / 1000 + 2.5)
PAUSE_S = (0.3, 1.5)
"""Between two faults."""
PATIENCE_S = 60.0
SAID_CHARACTERS = 600


@dataclass
class Findings:
    """What a round did, and what was wrong."""

    counts: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


class Program:
    """A process of the fleet. What it prints goes into a file."""

    def __init__(self, process: asyncio.subprocess.Process, output: Path) -> None:
        self.process = process
        self.output = output
        self._by_itself: int | None = None
        self._meant: int | None = None

    @classmethod
    async def start(cls, output: Path, environment: dict[str, str], *arguments: str) -> Program:
        """Run `python -m` *arguments*."""
        with output.open("wb") as file:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", *arguments), cwd=output.parent, env=environment, stdout=file, stderr=file
            )
        return cls(process, output)

    @property
    def wrong(self) -> list[str]:
        """What it should not have done: ended by itself, logged an error, or left one to the interpreter."""
        name, text = self.output.stem, self.output.read_text()
        ended = (
            [f"{name} ended with {self._by_itself}: {text[-SAID_CHARACTERS:]}"] if self._by_itself is not None else []
        )
        return ended + [f"{name}: {line[:SAID_CHARACTERS]}" for line in text.splitlines() if _is_error(line)]

    async def said(self, what: str) -> None:
        """Wait until it has printed *what*; fail if it ends before it has."""

        def found() -> bool:
            text = self.output.read_text()
            assert self.process.returncode is None, f"{self.output.stem} ended: {text[-SAID_CHARACTERS:]}"
            return what in text

        await until(found, f"{self.output.stem} says {what!r}", deadline_s=PATIENCE_S)

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    async def kill(self) -> None:
        """kill -9. Safe to repeat."""
        if self.process.returncode not in (self._meant, -signal.SIGKILL):
            self._by_itself = self.process.returncode
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()

    async def retire(self) -> None:
        """Ask it to end, as a platform does; returns when it has. Anything but 0 is wrong."""
        self._meant = 0
        self.send(signal.SIGTERM)
        await self.process.wait()


class Fleet:
    """A deployment with its processes. Killed, all of them, when the block of `launched` ends."""

    def __init__(
        self, deployment: Deployment, client: Client, truth: PrivateServer, folder: Path, draw: random.Random
    ) -> None:
        self.deployment = deployment
        self.client = client
        self.findings = Findings()
        self._folder = folder
        self._draw = draw
        self._environment = {
            **os.environ,
            **deployment.environment,
            "REDIS_URL": deployment.url,
            "CACHE_NAMESPACE": deployment.namespace,
            "CACHE_MAX_STALENESS": "0s",
            # what is acknowledged is never lost here, so an operator may say so: then the cache stays warm
            "CACHE_TRUST_RESTARTS": draw.choice(("true", "false")),
            "BUS_SHARDS": str(SHARDS),
            "CACHE": f"{DOMAIN}:cache",
            "HANDLERS": DOMAIN,
            "SCHEDULES": DOMAIN,
            "TRUTH_URL": truth.url,
            "DATA_DIR": str(folder),
            "LOG_FORMAT": "json",
            "PYTHONPATH": str(ROOT),
        }
        self._workers: list[Program] = []
        self._stopped: dict[Program, asyncio.Task[None]] = {}
        self._applications: dict[str, Program] = {}
        self._programs: list[Program] = []
        self._numbers = itertools.count(1)
        self._options: tuple[str, ...] = ()
        self._lost: Counter[int] = Counter()
        """How many workers were lost to each shard while they held it."""

    async def launch(self, *options: str) -> None:
        """Start everybody; returns when all work. *options* are those of the applications."""
        self._options = options
        await asyncio.gather(
            *[self._start_worker() for _ in range(WORKERS)], *[self._start_application(name) for name in APPLICATIONS]
        )
        await asyncio.gather(
            *[worker.said(STARTED) for worker in self._workers],
            *[application.said(READY) for application in self._applications.values()],
        )

    async def scuttle(self) -> None:
        """Kill everybody."""
        for resuming in self._stopped.values():
            resuming.cancel()
        await asyncio.gather(*[program.kill() for program in self._programs])

    async def _start_worker(self) -> None:
        self._workers.append(await self._start("worker", "cachebus.worker", "worker"))

    async def _start_application(self, name: str) -> None:
        given = (name, str(self._notes(name)), f"{self._draw.random()}", *self._options)
        self._applications[name] = await self._start(name, "tests.support.fleet.application", *given)

    async def _start(self, name: str, *arguments: str) -> Program:
        output = self._folder / f"{name}-{next(self._numbers)}.log"
        program = await Program.start(output, self._environment, *arguments)
        self._programs.append(program)
        return program

    def _notes(self, name: str) -> Path:
        return self._folder / f"{name}.notes"

    # -- the faults -------------------------------------------------------------------------------------------------

    async def attack(self, plan: Sequence[str]) -> None:
        """Let these faults come, one after the other, at random moments; returns when nobody is stopped any more."""
        for kind in plan:
            await asyncio.sleep(self._draw.uniform(*PAUSE_S))
            self.findings.faults[await getattr(self, f"_{kind}")()] += 1
        await asyncio.gather(*self._stopped.values())

    async def _kill(self) -> str:
        victim = self._any_worker()
        await victim.kill()
        await self._note_lost(victim)
        self._workers.remove(victim)
        await self._start_worker()
        return "worker killed"

    async def _stop(self) -> str:
        """Stop a worker for longer than its lease. Returns at once: other faults come meanwhile."""
        victim = self._any_worker()
        victim.send(signal.SIGSTOP)
        await self._note_lost(victim)
        self._stopped[victim] = asyncio.create_task(self._resume(victim, self._draw.uniform(*LONGER_THAN_A_LEASE_S)))
        return "worker stopped"

    async def _resume(self, stopped: Program, after_s: float) -> None:
        await asyncio.sleep(after_s)
        stopped.send(signal.SIGCONT)
        del self._stopped[stopped]

    async def _abandon(self) -> str:
        name = self._draw.choice(APPLICATIONS)
        await self._applications[name].kill()
        await self._start_application(name)
        return "application killed"

    async def _die(self) -> str:
        return await self.deployment.die(self._draw)

    async def _cut(self) -> str:
        await self.deployment.cut()
        return "connections closed"

    def _any_worker(self) -> Program:
        return self._draw.choice([worker for worker in self._workers if worker not in self._stopped])

    async def _note_lost(self, victim: Program) -> None:
        """Note what it holds: its leases outlive it."""
        leases = [self.client.names.bus("lease", str(shard)) for shard in range(SHARDS)]
        for shard, token in enumerate(await patiently(self.client.store.call, "MGET", *leases)):
            self._lost[shard] += (token or b"").decode().partition("/")[0].endswith(f".{victim.process.pid}")

    # -- the end ----------------------------------------------------------------------------------------------------

    async def settle(self, witness: Witness) -> list[Letter]:
        """Have nothing more changed, and wait until all is handled; returns the dead letters, which were replayed.

        Then no worker has anything in hand any more: all were asked to end, and did.
        """
        letters = DeadLetters(self.client, shards=SHARDS)
        for application in self._applications.values():
            await application.said(READY)
            application.send(signal.SIGTERM)
        for application in self._applications.values():
            await application.said(QUIET)
        accepted = {event for notes in self.notes().values() for event in _accepted(notes)}
        found: list[Letter] = []

        async def handled() -> bool:
            with contextlib.suppress(ServerError):
                found[:] = [letter async for letter in every_letter(letters)]
            return accepted <= {seen.event for seen in witness.feed} | {_event(letter) for letter in found}

        with contextlib.suppress(AssertionError):  # what is missing then is what is found
            await until(handled, "every event is handled", deadline_s=PATIENCE_S)
        await letters.replay(letter.letter_id for letter in found if letter.kind == "poison")
        with contextlib.suppress(AssertionError):
            await until(
                lambda: accepted <= {seen.event for seen in witness.feed}, "every letter", deadline_s=PATIENCE_S
            )
        await asyncio.gather(*[worker.said(STARTED) for worker in self._workers])
        await asyncio.gather(*[worker.retire() for worker in self._workers])
        return found

    def _explains(self, letter: Letter) -> bool:
        """Whether a dead letter is of the faults: two workers were lost that held its shard."""
        return letter.kind == "poison" and self._lost_to(letter) >= MOST_CRASHES

    def _lost_to(self, letter: Letter) -> int:
        return self._lost[shard_of(letter.key, SHARDS)]

    def notes(self) -> dict[str, list[AnyNote]]:
        """Return what each application has noted."""
        return {name: Past.of(self._notes(name)).notes for name in APPLICATIONS}

    def judge(self, witness: Witness, letters: Sequence[Letter]) -> None:
        """Compare everything with everything."""
        notes, findings = self.notes(), self.findings
        every = list(itertools.chain(*notes.values()))
        replayed = [_event(letter) for letter in letters if letter.kind == "poison"]
        for kind, events in check_events(every, witness.feed, replayed).items():
            findings.counts[kind] += len(events)
            findings.wrong += [f"{kind}: {events[:MOST_SAID]}, {len(events)} in all"] if events else []
        stale = stale_reads(notes, witness.feed)
        findings.wrong += [f"stale: {read}" for read in stale[:MOST_SAID]]
        findings.wrong += [*witness.wrong[:MOST_SAID], *raised(notes)[:MOST_SAID]]
        unexplained = [letter for letter in letters if not self._explains(letter)]
        findings.wrong += [
            f"dead letter: {letter.kind}, {letter.reason}; lost to its shard were {self._lost_to(letter)}"
            for letter in unexplained[:MOST_SAID]
        ]
        findings.wrong += itertools.chain(*[program.wrong[:MOST_SAID] for program in self._programs])
        doubt = {(note.key, note.n) for note in every if isinstance(note, Began) and note.event}
        counted = Counter(type(note) for note in every)
        findings.counts += Counter(
            {
                "events": counted[Accepted],
                "in doubt": len(doubt - set(_accepted(every))),
                "invalidated": counted[Invalidated],
                "reads": counted[Read],
                "stale": len(stale),
                "condemned": len(replayed),
                "eras": len(witness.eras),
            }
        )


async def patiently(ask: Callable[..., Awaitable[Any]], *arguments: Any) -> Any:
    """Ask until there is an answer: a connection that was closed costs one question."""
    while True:
        try:
            return await ask(*arguments)
        except ServerError:
            await asyncio.sleep(0.01)


def _accepted(notes: Sequence[AnyNote]) -> list[Event]:
    return [(note.key, note.n) for note in notes if isinstance(note, Accepted)]


def _is_error(line: str) -> bool:
    return '"level":"error"' in line or line.startswith("Traceback ") or "never retrieved" in line


def _event(letter: Letter) -> Event:
    """Return the event of a dead letter."""
    data = msgspec.json.decode(letter.payload, type=Changed)
    return data.key, data.n


@contextlib.asynccontextmanager
async def launched(topology: str, draw: random.Random, *options: str) -> AsyncIterator[Fleet]:
    """Run a fleet on a deployment of its own."""
    with (
        tempfile.TemporaryDirectory(prefix="cachebus-") as folder,
        PrivateServer.start("appendonly no") as truth,
    ):
        async with deployed(topology) as deployment:
            deployment.namespace = f"fleet{secrets.token_hex(4)}"
            async with deployment.client() as client:
                fleet = Fleet(deployment, client, truth, Path(folder), draw)
                try:
                    await fleet.launch(*options)
                    yield fleet
                finally:
                    await fleet.scuttle()


async def attacked(topology: str, draw: random.Random, plan: Sequence[str], *options: str) -> Findings:
    """Run a fleet through the faults of *plan*; returns what was found."""
    async with launched(topology, draw, *options) as fleet:
        witness = Witness(fleet.client)
        async with running(witness):
            await fleet.attack(plan)
            letters = await fleet.settle(witness)
        await patiently(witness.look)
        await fleet.scuttle()
        if unasked := await fleet.deployment.unasked():  # acknowledged writes are gone: nothing can be said of it
            return Findings(Counter({"rounds not judged": 1}), fleet.findings.faults + Counter({UNASKED: unasked}))
        fleet.judge(witness, letters)
        return fleet.findings
