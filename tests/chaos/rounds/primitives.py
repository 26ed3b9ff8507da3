"""Locks, limits and sessions: several processes and one truth."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from cachebus.errors import LockUnavailable, SessionsUnavailable, Unavailable
from cachebus.locks.locks import Locks
from cachebus.sessions.store import SessionStore
from tests.chaos.harness import Attack, Findings
from tests.support import lock_process
from tests.support.limit_models import MODELS
from tests.support.process_faults import SkewedClocks, pinch, release
from tests.support.session_process import Elsewhere
from tests.support.topologies import Deployment, deployed
from tests.support.worker_program import ROOT

SLICE_S = 4.0
"""How long sessions come and go in a round."""


class Stage:
    """A deployment, processes on it whose clocks are wrong, and what was found."""

    def __init__(self, attack: Attack, deployment: Deployment, clocks: SkewedClocks) -> None:
        self.draw = attack.draw
        self.deployment = deployment
        self.clocks = clocks
        self.findings = Findings(lacking={clocks.lacking} - {""})

    async def fault(self, kind: str) -> None:
        """Break something once, and count it."""
        if kind == "die":
            kind = await self.deployment.die(self.draw)
        elif kind == "fill":
            await self.deployment.fill(self.draw.uniform(0.2, 1.5))
            kind = "maxmemory reached"
        elif kind == "cut":
            await self.deployment.cut()
            kind = "connections closed"
        elif kind == "jump":
            kind = "clocks jumped" if self.clocks.jump() else "no clock jumped"
        self.findings.faults[kind] += 1

    @contextlib.asynccontextmanager
    async def processes(self, count: int, *arguments: str) -> AsyncIterator[list[asyncio.subprocess.Process]]:
        """Run the same program so many times; what has not ended is killed."""
        started = []
        for n in range(count):
            environment = {"PYTHONPATH": str(ROOT)} | self.deployment.environment | self.clocks.environment()
            command = (sys.executable, *(argument.replace("{n}", str(n)) for argument in arguments))
            pipe = asyncio.subprocess.PIPE
            process = await asyncio.create_subprocess_exec(
                *command, env=os.environ | environment, stdin=pipe, stdout=pipe, limit=1 << 24
            )
            started.append(process)
        try:
            yield started
        finally:
            for process in started:
                if process.returncode is None:
                    process.kill()
                await process.wait()


@contextlib.asynccontextmanager
async def staged(attack: Attack) -> AsyncIterator[Stage]:
    """Set the stage for a round."""
    with tempfile.TemporaryDirectory(prefix="cachebus-") as folder:
        async with deployed(attack.topology) as deployment:
            deployment.namespace = f"chaos{secrets.token_hex(4)}"
            yield Stage(attack, deployment, SkewedClocks(Path(folder), attack.draw))


async def locks(attack: Attack) -> Findings:
    """Three processes add to one value under one lock; they are stopped for longer than its lease, and starved."""
    async with staged(attack) as stage:
        deployment, findings = stage.deployment, stage.findings
        verb = ("race", "40") if attack.broken else ("count", "60")
        program = (lock_process.__file__, deployment.url, deployment.namespace, "300ms", *verb)
        async with stage.processes(3, *program) as running, deployment.client() as client:
            for process in running:
                await _said(process)
            guard, tokens = Locks(client), [0]
            plan = (
                [] if attack.broken else ["stop"] * 4 + stage.draw.sample(["die", "fill", "cut", "jump", "starve"], 3)
            )
            stage.draw.shuffle(plan)
            for kind in plan:
                if kind == "stop":
                    await _outlast(guard, stage, stage.draw.choice(running), tokens)
                elif kind == "starve":
                    await _starve(stage, stage.draw.choice(running))
                else:
                    await stage.fault(kind)
            said = [await _said(process) for process in running]
            sure, unsure = (sum(int(words[at]) for words in said) for at in (1, 2))
            value = await patiently(guard.guarded_get, "the value")
        findings.counts += Counter(writes=sure, unsure=unsure)
        if not sure <= value <= sure + unsure:
            findings.wrong.append(f"{sure} writes were sure and {unsure} were not; the value is {value}")
        return findings


async def _outlast(guard: Locks, stage: Stage, stopped: asyncio.subprocess.Process, tokens: list[int]) -> None:
    """Stop a process until its lease has ended and the lock is ours."""
    with contextlib.suppress(ProcessLookupError):
        stopped.send_signal(signal.SIGSTOP)
    try:
        with contextlib.suppress(LockUnavailable):
            async with guard.lock("the lock") as held:
                if held.token <= tokens[-1]:
                    stage.findings.wrong.append(f"fencing token {held.token} after {tokens[-1]}")
                tokens.append(held.token)
    finally:
        with contextlib.suppress(ProcessLookupError):
            stopped.send_signal(signal.SIGCONT)
    stage.findings.faults["stop"] += 1


async def _starve(stage: Stage, process: asyncio.subprocess.Process) -> None:
    """Refuse a process all memory for a while. A lock's holder asks for little, and is to live."""
    with contextlib.suppress(ProcessLookupError):  # it has ended
        pinch(process.pid)
        await asyncio.sleep(stage.draw.uniform(0.2, 1.0))
        release([process.pid])
        stage.findings.faults["memory limit"] += 1


async def _said(process: asyncio.subprocess.Process) -> list[str]:
    assert process.stdout is not None
    return (await process.stdout.readline()).decode().split()


async def limits(attack: Attack) -> Findings:
    """Three processes hammer one counter while scripts are forgotten; an exact model says each answer.

    A check without an answer is made again. So a server dies only while writes wait: it has not been done.
    """
    kind, limit = attack.draw.choice([("log", 20), ("bucket", 50), ("windows", 80), ("fixed", 40)])
    async with staged(attack) as stage:
        deployment, findings = stage.deployment, stage.findings
        here = f"{deployment.namespace}{{n}}" if attack.broken else deployment.namespace  # broken: each by itself
        program = (str(ROOT / "tests/support/hammer_limit.py"), deployment.url, here, kind, str(limit), "300000")
        async with stage.processes(3, *program, f"{{n}}{attack.draw.randrange(1 << 20)}") as running:
            reading = asyncio.gather(*[process.communicate() for process in running])
            plan = ["fill", "jump", *(["die"] if deployment.replicated else [])]
            attack.draw.shuffle(plan)
            while not reading.done():
                await deployment.ask_all("SCRIPT", "FLUSH")
                findings.faults["script flush"] += 1
                await asyncio.wait([reading], timeout=attack.draw.uniform(0.02, 0.2))
                if plan and not reading.done() and not attack.broken and attack.draw.random() < 0.2:
                    await stage.fault(plan.pop())
            outputs = [output for output, _ in await reading]
    model = MODELS[kind](limit, 300_000)
    for now, cost, *look in sorted(answer for output in outputs for answer in json.loads(output)):
        findings.counts += Counter(checks=1, admitted=look[1] == 0)
        if not findings.wrong and tuple(look) != (wanted := model.take(now, cost)):
            findings.wrong.append(f"{kind}: {look} where the model says {list(wanted)}")
    return findings


async def sessions(attack: Attack) -> Findings:
    """Requests and logouts of one session interleave in two processes, of which one has another time."""
    async with staged(attack) as stage:
        given = {**os.environ, "PYTHONPATH": str(ROOT), **stage.deployment.environment, **stage.clocks.environment()}
        options = ("--remembering",) if attack.broken else ()
        async with (
            stage.deployment.client() as client,
            Elsewhere.started(given, stage.deployment.url, stage.deployment.namespace, *options) as there,
        ):
            here = SessionStore(client)
            until_s = time.monotonic() + SLICE_S
            faults = asyncio.create_task(_break(stage, attack.broken))
            while (time.monotonic() < until_s or not faults.done()) and not stage.findings.wrong:
                await _one_session(stage, here, there)
            await faults
        return stage.findings


async def _break(stage: Stage, broken: bool) -> None:
    for kind in [] if broken else stage.draw.sample(["die", "fill", "cut", "jump"], 2):
        await asyncio.sleep(stage.draw.uniform(0.3, 1.0))
        await stage.fault(kind)


async def _one_session(stage: Stage, here: SessionStore, there: Elsewhere) -> None:
    draw, findings = stage.draw, stage.findings
    user = findings.counts["sessions"]
    session_id = await patiently(here.create, user, {"n": 0})
    if await patiently(there.get, session_id) is None:
        findings.wrong.append(f"the session of user {user} lives, and is not served")

    async def request(store: Any) -> None:
        with contextlib.suppress(SessionsUnavailable, Unavailable):
            for _ in range(draw.randrange(3)):
                await asyncio.sleep(0)
            if await store.get(session_id, ip="10.0.0.1") is not None:
                await store.update(session_id, {"n": 1})
            await store.rotate(session_id)

    requests = [asyncio.create_task(request(store)) for store in (here, there) * 4]
    for _ in range(draw.randrange(4)):
        await asyncio.sleep(0)
    await patiently(here.invalidate_user, user)
    for store in (here, there):
        if await patiently(store.get, session_id) is not None:
            findings.wrong.append(f"session of user {user} is served after its logout had returned")
    await asyncio.gather(*requests)
    left = await patiently(there.list_user, user)
    if left:
        findings.wrong.append(f"user {user} has {left} sessions after a logout everywhere")
    findings.counts += Counter(sessions=1, requests=8)


async def patiently(ask: Callable[..., Any], *arguments: Any) -> Any:
    """Ask until there is an answer: a connection that was closed costs one question."""
    while True:
        try:
            return await ask(*arguments)
        except (SessionsUnavailable, LockUnavailable, Unavailable):
            await asyncio.sleep(0.01)
