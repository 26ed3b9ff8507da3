"""What the store knows of jobs: one record each, changed only by scripts, on the server's own clock."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple

import msgspec

from cachebus.link import Link
from cachebus.schedules import Job
from cachebus.scripts import script
from cachebus.wire import Reply

Marks = dict[str, tuple[int, int]]
"""How far each warming of a run has come: what it warms -> index reached, fingerprint of its list."""

GREETED_AT_ONCE = 400
"""Jobs named in one call: a script takes at most 1,000 arguments."""


class JobStatus(msgspec.Struct, frozen=True):
    """What is known of a job, everywhere the same. Times are microseconds of the server's clock; None: never yet."""

    name: str
    when: str
    state: str
    """waiting, claimed, running, done, failed, died (with its worker) or cancelled (its worker was stopped)."""
    next_us: int | None
    last_fire: int | None = None
    """The newest fire time that was taken or passed over."""
    holder: str = ""
    attempt: int = 0
    """How often the last fire time was started: 2 after a death."""
    started: int | None = None
    finished: int | None = None
    duration_ms: float = 0.0
    outcome: str = ""
    error: str = ""
    progress: str = ""
    paused: bool = False
    runs: int = 0
    overlaps: int = 0
    misfires: int = 0
    deaths: int = 0


class Run:
    """One run of a job that this worker holds."""

    def __init__(self, job: Job, token: str, fence: int, fire_us: int, marks: bytes = b"") -> None:
        self.job = job
        self.token = token
        self.fence = fence
        """Grows with every run of the job: a store that compares it refuses a holder that was replaced."""
        self.fire_us = fire_us
        self.waiting = True
        """Its jitter is not over."""
        self.began = 0.0
        """When its body was called, on this process's performance counter; 0: not yet."""
        self.progress = ""
        """For people: shown while it runs and afterwards."""
        self.marks: Marks = msgspec.json.decode(marks, type=dict[str, tuple[int, int]]) if marks else {}
        """For whoever has to start it again: how far each warming has come."""

    def say(self, progress: str) -> None:
        """Set the progress that people see."""
        self.progress = progress


class Answer(NamedTuple):
    """What became of a claim."""

    word: str
    number: int
    """The fence of a run that is ours; after `early`, milliseconds to wait."""


class Jobs:
    """The records of a deployment's jobs, as one worker sees and changes them. Each method is one round trip.

    All of them may be repeated when the answer was lost. Raise: ServerError.
    """

    def __init__(self, link: Link, *, holder: str, lease_ms: int) -> None:
        self._link = link
        self._holder = holder
        self._lease_ms = lease_ms
        self._running = link.names.bus("jobs", "running")
        self._server_run = link.names.bus("jobs", "run")

    async def look(self) -> tuple[int, list[str]]:
        """Return the server's time, and the names of jobs whose lease has ended."""
        now, dead = await self._link.store.run("look_at_jobs", (self._running, self._server_run))
        head = len(self._key(""))
        return int(now), [key.decode()[head:] for key in dead]

    async def greet(self, call: Callable[..., Awaitable[Reply]], taken: Mapping[str, int]) -> int:
        """Say which fire times were *taken*; return how many of them the server had forgotten."""
        forgotten = 0
        names = list(taken)
        for first in range(0, max(1, len(names)), GREETED_AT_ONCE):
            part = names[first : first + GREETED_AT_ONCE]
            keys = (self._server_run, self._link.names.ledger, *[self._key(name) for name in part])
            args = [taken[name] for name in part]
            forgotten += await call("EVAL", script("greet_jobs").text, len(keys), *keys, *args)
        return forgotten

    async def claim(self, job: Job, fire_us: int, token: str) -> Answer:
        """Ask for one fire time of a job; 0: for a run by hand, whatever the time."""
        names = self._link.names
        keys = (self._key(job.name), self._running, self._server_run, names.ledger, names.journal)
        args = (fire_us, token, self._lease_ms, self._holder, job.late_ms, int(job.misfire == "once"))
        word, number = await self._link.store.run("claim_job", keys, args)
        return Answer(word.decode(), int(number))

    async def reclaim(self, job: Job, token: str) -> Run | str:
        """Ask for what a dead worker left: the run, if it may be started again, or the word for why not."""
        keys = (self._key(job.name), self._running, self._server_run)
        args = (token, self._lease_ms, self._holder, job.most_starts)
        word, fence, fire, marks = await self._link.store.run("reclaim_job", keys, args)
        return Run(job, token, int(fence), int(fire), marks) if word == b"ours" else str(word.decode())

    async def start(self, run: Run) -> bool:
        """Take the step right before the body; False: somebody else has it."""
        return await self._step("start_job", run, self._lease_ms)

    async def renew(self, run: Run) -> bool:
        """Keep the lease; False: it is somebody else's."""
        return await self._step("renew_job", run, self._lease_ms, run.progress, _encoded(run.marks))

    async def finish(self, run: Run, error: str, duration_ms: float) -> bool:
        """Say how a run ended: done, unless there is an *error*; False: it is somebody else's."""
        outcome = "failed" if error else "done"
        return await self._step("finish_job", run, outcome, error, f"{duration_ms:.1f}", run.progress)

    async def release(self, run: Run) -> bool:
        """Hand a run back: another worker may start it at once; False: it is somebody else's."""
        return await self._step("release_job", run, run.progress, _encoded(run.marks))

    async def pause(self, job: Job, *, paused: bool) -> None:
        """Let fire times pass, or no longer."""
        await self._link.store.call("HSET", self._key(job.name), "paused", int(paused))

    async def status(self, job: Job) -> JobStatus:
        """Return what is known of a job."""
        reply = await self._link.store.call("HGETALL", self._key(job.name))
        facts = {reply[i].decode(): reply[i + 1].decode() for i in range(0, len(reply), 2)}
        known = {name: value for name, value in facts.items() if name in JobStatus.__struct_fields__}
        state = facts.get("state", "waiting")
        paused = facts.get("paused") == "1"
        about = {"name": job.name, "when": job.description, "next_us": job.times.next(self._link.now_us())}
        return msgspec.convert({**known, **about, "state": state, "paused": paused}, JobStatus, strict=False)

    async def _step(self, verb: str, run: Run, *args: str | int | bytes) -> bool:
        keys = (self._key(run.job.name), self._running)
        return bool(await self._link.store.run(verb, keys, (run.token, *args)))

    def _key(self, name: str) -> str:
        return self._link.names.bus("job", name)


def _encoded(marks: Marks) -> bytes:
    return msgspec.json.encode(marks) if marks else b""
