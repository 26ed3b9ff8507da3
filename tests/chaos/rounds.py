"""One round of each harness: a few seconds of load, with faults at random moments."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import secrets
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

from cachebus.errors import SessionsUnavailable, Unavailable
from cachebus.locks.locks import Locks
from cachebus.redis.client import Client
from cachebus.sessions.session import Session
from cachebus.sessions.store import SessionStore
from cachebus.testing.server import PrivateServer
from tests.chaos.harness import Findings, Harness
from tests.faults.matrix import UNBROKEN, Cell, Scale, cells
from tests.faults.matrix import run as run_cell
from tests.model.world import schedule
from tests.support import lock_process
from tests.support.bus_harness import crash
from tests.support.bus_later_harness import ImportHarness
from tests.support.changing_credentials import Answer, Rotation, Tokens, load
from tests.support.limit_models import MODELS
from tests.support.resume_schedules import Forgetful as PublishOnly
from tests.support.resume_schedules import Gate, Schedule
from tests.support.schedules_soak import soak
from tests.support.worker_program import ROOT

SLICE_S = 2.0
"""How long a round of what needs no server goes on."""


async def freshness(draw: random.Random, broken: bool) -> Findings:
    """Run a cell of the fault matrix: readers in processes, a way to read, a way to invalidate, a fault."""
    cell = Cell("view", "tag", "none") if broken else draw.choice(cells())
    scale = Scale(reads=300, changes=20 if broken else 40, faults=2, processes=2, stops_s=(0.5, 5.0))
    seen = await run_cell(cell, scale, seed=draw.randrange(1 << 20), broken="born" if broken else UNBROKEN)
    counts = Counter(reads=seen.reads, invalidations=seen.changes, errors=seen.errors, stale=seen.stale)
    wrong = [f"{cell}: {seen.stale} stale reads, the oldest by {seen.worst_ms:.0f} ms"] if seen.stale else []
    return Findings(counts, Counter({cell.fault: seen.faults}), wrong)


async def rule(draw: random.Random, broken: bool) -> Findings:
    """Walk the freshness rule itself through random schedules: no server, no time, every fault of the model."""
    findings, until_s = Findings(), time.monotonic() + SLICE_S
    while time.monotonic() < until_s and not findings.wrong:
        seed = draw.randrange(1 << 40)
        for found in schedule(seed, 500, ["born"] if broken else []):
            findings.wrong.append(f"schedule {seed}: {found}")
        findings.counts += Counter(schedules=1, steps=500)
        await asyncio.sleep(0)
    return findings


async def bus(draw: random.Random, broken: bool) -> Findings:
    """Kill, stop, restart, cut and black-hole two workers while events are published."""
    faults = {"stop": 2} if broken else {"kill": 2, draw.choice(["stop", "restart", "cut", "swallow"]): 1}
    seen, _ = await crash(events=60 if broken else 400, faults=faults, seed=draw.randrange(1 << 20), fence=not broken)
    parts = ("lost", "twice", "invented", "disordered", "not_invalidated")
    wrong = [f"{part}: {getattr(seen, part)}" for part in parts if getattr(seen, part)]
    counts = Counter(events=seen.published, plain=seen.plain, condemned=len(seen.condemned))
    counts += Counter(lost=len(seen.lost), twice=len(seen.twice))
    if not seen.sound and not wrong:
        wrong = [f"dead letter: {letter.kind}, {letter.reason}" for letter in seen.letters]
    return Findings(counts, Counter(faults), wrong)


class Forgetful(ImportHarness):
    """Delayed events are kept where the workers are, as it were, and die with them. It has no import."""

    async def _import(self, killing: asyncio.Task[None]) -> None:
        await self._bus.publish("imports", {"n": 0})
        await killing

    async def _kill(self) -> None:
        """Kill nobody yet."""

    async def _overdue(self) -> bool:
        overdue = await super()._overdue()
        if overdue:
            names = self._client.names
            await self._client.store.call("DEL", names.bus("delayed"), names.bus("delayed-items"))
        return overdue

    async def _closed(self) -> bool:
        return True

    async def _done(self) -> bool:
        return True


async def later(draw: random.Random, broken: bool) -> Findings:
    """Kill workers during an import whose handler is debounced, and while delayed events come due."""
    kind, kills = (Forgetful, 0) if broken else (ImportHarness, 2)
    with PrivateServer.start() as server:
        seen = await kind(server, events=600, kills=kills, seed=draw.randrange(1 << 20)).run()
    wrong = [f"lost {seen.lost}"] if seen.lost else []
    wrong += [f"twice {seen.twice}"] if seen.twice else []
    if seen.broadcasts != [seen.imported - 1]:
        wrong.append(f"broadcasts {seen.broadcasts} of {seen.imported} events")
    counts = Counter(imported=seen.imported, delayed=seen.delayed, lost=len(seen.lost), twice=len(seen.twice))
    return Findings(counts, Counter(kill=kills, **{"no worker": 1}), wrong)


async def schedules(draw: random.Random, broken: bool) -> Findings:
    """Kill or freeze whoever holds a run."""
    options = ("--without-claim",) if broken else ()
    with PrivateServer.start("appendonly no") as server:
        seen = await soak(server, kills=3, lease_ms=1_000, options=options, seed=draw.randrange(1 << 20))
    counts = Counter({"fire times": seen.started, "once more": seen.twice, "unaccounted": seen.unaccounted})
    return Findings(counts, Counter(kill=seen.kills, stop=seen.freezes), seen.wrong)


@contextlib.asynccontextmanager
async def _processes(count: int, *arguments: str) -> AsyncIterator[list[asyncio.subprocess.Process]]:
    """Run the same program so many times; what has not ended is killed."""
    pipes = {"stdin": asyncio.subprocess.PIPE, "stdout": asyncio.subprocess.PIPE}
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    started = [
        await asyncio.create_subprocess_exec(
            sys.executable,
            *(argument.replace("{n}", str(n)) for argument in arguments),
            env=environment,
            **pipes,  # type: ignore[arg-type] # of streams
        )
        for n in range(count)
    ]
    try:
        yield started
    finally:
        for process in started:
            if process.returncode is None:
                process.kill()
            await process.wait()


async def locks(draw: random.Random, broken: bool) -> Findings:
    """Three processes add to one value under one lock; each is stopped for longer than its lease, again and again."""
    findings, namespace = Findings(), f"chaos{secrets.token_hex(4)}"
    with PrivateServer.start("appendonly no") as server:
        verb = ("race", "40") if broken else ("count", "40")
        program = (lock_process.__file__, server.url, namespace, "300ms", *verb)
        async with _processes(3, *program) as running, Client(server.url, namespace=namespace) as client:
            for process in running:
                await _said(process)
            guard, token = Locks(client), 0
            for _ in range(0 if broken else 6):
                stopped = draw.choice(running)
                with contextlib.suppress(ProcessLookupError):
                    stopped.send_signal(signal.SIGSTOP)
                try:
                    async with guard.lock("the lock") as held:
                        if held.token <= token:
                            findings.wrong.append(f"fencing token {held.token} after {token}")
                        token = held.token
                finally:
                    with contextlib.suppress(ProcessLookupError):
                        stopped.send_signal(signal.SIGCONT)
                findings.faults["stop"] += 1
            said = [await _said(process) for process in running]
            sure, unsure = (sum(int(words[at]) for words in said) for at in (1, 2))
            value = await guard.guarded_get("the value")
    findings.counts += Counter(writes=sure, unsure=unsure)
    if not sure <= value <= sure + unsure:
        findings.wrong.append(f"{sure} writes were sure and {unsure} were not; the value is {value}")
    return findings


async def _said(process: asyncio.subprocess.Process) -> list[str]:
    assert process.stdout is not None
    return (await process.stdout.readline()).decode().split()


async def limits(draw: random.Random, broken: bool) -> Findings:
    """Three processes hammer one counter while scripts are forgotten; an exact model says each answer."""
    kind, limit = draw.choice([("log", 20), ("bucket", 50), ("windows", 80), ("fixed", 40)])
    findings, namespace = Findings(), f"chaos{secrets.token_hex(4)}"
    with PrivateServer.start("appendonly no") as server:
        here = f"{namespace}{{n}}" if broken else namespace  # broken: each counts by itself
        program = (str(ROOT / "tests/support/hammer_limit.py"), server.url, here, kind, str(limit), "300000")
        async with _processes(3, *program, f"{{n}}{draw.randrange(1 << 20)}") as running:
            reading = asyncio.gather(*[process.communicate() for process in running])
            while not reading.done():
                await asyncio.to_thread(server.ask, "SCRIPT", "FLUSH")
                findings.faults["script flush"] += 1
                await asyncio.wait([reading], timeout=draw.uniform(0.02, 0.2))
            outputs = [output for output, _ in await reading]
    model = MODELS[kind](limit, 300_000)
    for now, cost, *look in sorted(answer for output in outputs for answer in json.loads(output)):
        findings.counts += Counter(checks=1, admitted=look[1] == 0)
        if not findings.wrong and tuple(look) != (wanted := model.take(now, cost)):
            findings.wrong.append(f"{kind}: {look} where the model says {list(wanted)}")
    return findings


class Remembering(SessionStore):
    """A store that keeps what it has read, as if a logout elsewhere could be waited for."""

    _kept: dict[str | None, Session]

    async def get(self, session_id: str | None, **given: Any) -> Session | None:
        """Return what was read once."""
        kept = self.__dict__.setdefault("_kept", {})
        found = kept.get(session_id) or await super().get(session_id, **given)
        if found is not None:
            kept[session_id] = found
        return found


async def sessions(draw: random.Random, broken: bool) -> Findings:
    """Requests and logouts of one session interleave over two connections, which are closed now and then."""
    findings, namespace = Findings(), f"chaos{secrets.token_hex(4)}"
    with PrivateServer.start("appendonly no") as server:
        async with Client(server.url, namespace=namespace) as one, Client(server.url, namespace=namespace) as other:
            here = SessionStore(one)
            there = (Remembering if broken else SessionStore)(other)
            until_s = time.monotonic() + SLICE_S
            while time.monotonic() < until_s and not findings.wrong:
                await _one_session(draw, server, here, there, findings)
    return findings


async def _one_session(
    draw: random.Random, server: PrivateServer, here: SessionStore, there: SessionStore, findings: Findings
) -> None:
    user = findings.counts["sessions"]
    session_id = await _patiently(here.create, user, {"n": 0})

    async def request(store: SessionStore) -> None:
        with contextlib.suppress(SessionsUnavailable, Unavailable):
            for _ in range(draw.randrange(3)):
                await asyncio.sleep(0)
            if await store.get(session_id, ip="10.0.0.1") is not None:
                await store.update(session_id, {"n": 1})
            await store.rotate(session_id)

    if draw.random() < 0.005:
        await asyncio.to_thread(server.ask, "CLIENT", "KILL", "TYPE", "normal")
        findings.faults["connections closed"] += 1
    requests = [asyncio.create_task(request(store)) for store in (here, there) * 4]
    for _ in range(draw.randrange(4)):
        await asyncio.sleep(0)
    await _patiently(here.invalidate_user, user)
    for store in (here, there):
        if await _patiently(store.get, session_id) is not None:
            findings.wrong.append(f"session of user {user} is served after its logout had returned")
    await asyncio.gather(*requests)
    left = await _patiently(there.list_user, user)
    if left:
        findings.wrong.append(f"user {user} has {len(left)} sessions after a logout everywhere")
    findings.counts += Counter(sessions=1, requests=8)


async def _patiently(ask: Any, *arguments: Any) -> Any:
    """Ask until there is an answer: a connection that was closed costs one question."""
    while True:
        try:
            return await ask(*arguments)
        except (SessionsUnavailable, Unavailable):
            await asyncio.sleep(0.01)


async def resume(draw: random.Random, broken: bool) -> Findings:
    """Publish, trim, flush, fail over, restart gateways and reconnect browsers in any order, without a server."""
    findings, until_s = Findings(), time.monotonic() + SLICE_S
    while time.monotonic() < until_s and len(findings.wrong) < 3:
        seed = draw.randrange(1 << 40)
        played = Schedule(seed, PublishOnly if broken else Gate)
        try:
            await played.play()
        except AssertionError as found:
            findings.wrong.append(f"schedule {seed}: {str(found).splitlines()[0]}")
        findings.counts += Counter(
            schedules=1,
            resumed=sum(browser.resumed for browser in played.browsers),
            resets=sum(browser.resets for browser in played.browsers),
        )
    return findings


class Frozen(Rotation):
    """A program that was given its password once."""

    async def token(self) -> Answer:
        """Return what was valid at first."""
        first = await super().token()
        self._first: Answer = getattr(self, "_first", first)
        return self._first


async def credentials(draw: random.Random, broken: bool) -> Findings:
    """Replace the password, or let tokens expire, under load: ACL users change, and connections are closed."""
    with PrivateServer.start() as server:
        rotation = Frozen(server, 0.3, draw) if broken else Rotation(server, 1.0, draw)
        kind = rotation if broken or draw.random() < 0.5 else Tokens(server, 3.0)
        seen = await load(server, kind, 1.0 if broken else 4.0)
    counts = Counter(reads=seen.reads, events=seen.published, messages=seen.sent, gaps=seen.gaps)
    wrong = seen.errors[:3]
    if seen.handled != seen.published:
        wrong.append(f"{seen.published} events published, {seen.handled} handled")
    if seen.heard != seen.sent and not seen.gaps:
        wrong.append(f"{seen.sent} messages sent, {seen.heard} heard, and no gap was told")
    return Findings(counts, Counter({"credentials changed": seen.changes, "connections closed": seen.closed}), wrong)


HARNESSES = [
    Harness("freshness", "No read is older than an invalidation that had returned.", "the birth of entries", freshness),
    Harness("rule", "The rule of freshness itself lets nothing stale pass.", "the birth of entries", rule),
    Harness("bus", "Each event's effects are written once, in order.", "the fence of the commit", bus),
    Harness("later", "Delayed events come once; an import is one broadcast.", "that Redis keeps them", later),
    Harness("schedules", "Each fire time is started once, and again only after a death.", "the claim", schedules),
    Harness("locks", "Two holders never both write.", "the lock", locks),
    Harness("limits", "Each answer is what an exact model says.", "the common counter", limits),
    Harness("sessions", "A session that was ended is served by nobody.", "that no process keeps one", sessions),
    Harness("resume", "A browser gets each message once, or is told.", "the feed, as by PUBLISH alone", resume),
    Harness(
        "credentials", "Credentials that change cost nobody anything.", "that they are asked for again", credentials
    ),
]
