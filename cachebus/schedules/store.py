"""What the store knows of jobs: one record each, changed only by scripts, on the server's own clock."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from cachebus.freshness.ledger import new_era
from cachebus.redis.client import Client
from cachebus.redis.connection import Connection
from cachebus.redis.server import Server
from cachebus.schedules.decorators import Job

Marks = dict[str, tuple[int, int]]
"""How far each warming of a run has come: what it warms -> index reached, fingerprint of its list."""

GREETED_AT_ONCE = 400
"""Jobs named in one call: a script takes at most 1,000 arguments."""


RUNS_KEPT = 20
"""Of each job."""
LONGEST_LINE = 200
LATE_US = 60_000_000
"""A job that has not started so long after its time is late."""


class FinishedRun(msgspec.Struct, frozen=True):
    """One run of a job that has ended."""

    finished: int
    """Microseconds of the server's clock."""
    duration_ms: float
    outcome: str
    """done or failed."""
    error: str
    """In a line; '' where there was none."""
    holder: str
    """The worker."""


class JobStatus(msgspec.Struct, frozen=True):
    """What is known of a job, everywhere the same. Times are microseconds of the server's clock; None: never yet."""

    name: str
    when: str
    state: str
    """waiting, claimed, running, done, failed, died (with its worker) or cancelled (its worker was stopped)."""
    next_us: int | None
    last_fire: int | None = None
    """The newest fire time that was claimed or passed over."""
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
    paused_until: int | None = None
    """None while it is paused: until somebody resumes it."""
    late_since: int | None = None
    """The fire time that should have been claimed by now; None: it is not late."""
    runs: int = 0
    overlaps: int = 0
    misfires: int = 0
    deaths: int = 0
    history: list[FinishedRun] = []
    """The last runs that ended, newest first."""


class JobTimes(msgspec.Struct, frozen=True):
    """When a job fires. Times are microseconds of the server's clock."""

    when: str
    """As written."""
    next_us: int | None
    due_us: int | None
    """The first fire time after the last one that was claimed; it may have passed."""


class JobRun:
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

    def __init__(self, client: Client, *, holder: str, lease_ms: int) -> None:
        self._client = client
        self._holder = holder
        self._lease_ms = lease_ms
        self._running = client.names.bus("jobs", "running")
        self._server_run = client.names.bus("jobs", "run")

    async def look(self) -> tuple[int, list[str]]:
        """Return the server's time, and the names of jobs whose lease has ended."""
        now, dead = await self._client.store.run("schedules/look_at_jobs", (self._running, self._server_run))
        head = len(self._key(""))
        return int(now), [key.decode()[head:] for key in dead]

    async def greet(self, server: Server | Connection, taken: Mapping[str, int]) -> int:
        """Say which fire times were *taken*; return how many of them the server had forgotten."""
        forgotten = 0
        names = list(taken)
        for first in range(0, max(1, len(names)), GREETED_AT_ONCE):
            part = names[first : first + GREETED_AT_ONCE]
            keys = (self._server_run, self._client.names.ledger, *[self._key(name) for name in part])
            args = [taken[name] for name in part]
            forgotten += await server.run("schedules/greet_jobs", keys, args)
        return forgotten

    async def claim(self, job: Job, fire_us: int, token: str) -> Answer:
        """Ask for one fire time of a job; 0: for a manual run, whatever the time."""
        names = self._client.names
        keys = (self._key(job.name), self._running, self._server_run, names.ledger, names.journal)
        args = (fire_us, token, self._lease_ms, self._holder, job.late_ms, int(job.misfire == "once"), new_era())
        word, number = await self._client.store.run("schedules/claim_job", keys, args)
        return Answer(word.decode(), int(number))

    async def reclaim(self, job: Job, token: str) -> JobRun | str:
        """Ask for what a dead worker left: the run, if it may be started again, or the word for why not."""
        keys = (self._key(job.name), self._running, self._server_run)
        args = (token, self._lease_ms, self._holder, job.most_starts)
        word, fence, fire, marks = await self._client.store.run("schedules/reclaim_job", keys, args)
        return JobRun(job, token, int(fence), int(fire), marks) if word == b"ours" else str(word.decode())

    async def start(self, run: JobRun) -> bool:
        """Take the step right before the body; False: somebody else has it."""
        return await self._step("schedules/start_job", run, self._lease_ms)

    async def renew(self, run: JobRun) -> bool:
        """Keep the lease; False: it is somebody else's."""
        return await self._step("schedules/renew_job", run, self._lease_ms, run.progress, _encoded(run.marks))

    async def finish(self, run: JobRun, error: str, duration_ms: float) -> bool:
        """Say how a run ended: done, unless there is an *error*; False: it is somebody else's."""
        outcome = "failed" if error else "done"
        line = line_of(error)
        took = f"{duration_ms:.1f}"
        return await self._step("schedules/finish_job", run, outcome, error, took, run.progress, line, RUNS_KEPT)

    async def release(self, run: JobRun) -> bool:
        """Release a run: another worker may start it at once; False: it is somebody else's."""
        return await self._step("schedules/release_job", run, run.progress, _encoded(run.marks))

    async def pause(self, job: Job, *, paused: bool, until_us: int = 0) -> None:
        """Let fire times pass, for good or until a time of the server's clock, or no longer."""
        await self._client.store.call("HSET", self._key(job.name), "paused", (until_us or 1) if paused else 0)

    async def status(self, job: Job) -> JobStatus:
        """Return what is known of a job."""
        return status_of(job, await record_of(self._client, job.name), self._client.now_us())

    async def _step(self, verb: str, run: JobRun, *args: str | int | bytes) -> bool:
        keys = (self._key(run.job.name), self._running)
        return bool(await self._client.store.run(verb, keys, (run.token, *args)))

    def _key(self, name: str) -> str:
        return record_key(self._client, name)


def record_key(client: Client, name: str) -> str:
    """Return the name of a job's record."""
    return client.names.bus("job", name)


async def record_of(client: Client, name: str) -> dict[str, str]:
    """Return a job's record, empty where nobody has heard of it. One shared round trip. Raises: ServerError."""
    reply = await client.store.call("HGETALL", record_key(client, name))
    return {field.decode(): value.decode() for field, value in zip(reply[::2], reply[1::2], strict=True)}


def status_of(job: Job, facts: Mapping[str, object], now_us: int) -> JobStatus:
    """Return the *facts* of a job's record as people see them. Pure."""
    last = facts.get("last_fire")
    due = job.times.next(int(str(last))) if last is not None else None
    return status_from(facts, JobTimes(job.description, job.times.next(now_us), due), job.name, now_us)


def status_from(facts: Mapping[str, object], times: JobTimes, name: str, now_us: int) -> JobStatus:
    """Return the same for whoever does not have the job itself, but its times. Pure."""
    known = {field: value for field, value in facts.items() if field in JobStatus.__struct_fields__}
    if isinstance(kept := known.get("history"), str):
        known["history"] = msgspec.json.decode(kept)
    state, paused = facts.get("state", "waiting"), is_paused(facts.get("paused"), now_us)
    until = int(str(facts.get("paused", 0)))
    late = (
        times.due_us is not None
        and times.due_us < now_us - LATE_US
        and times.due_us > int(str(facts.get("last_fire", 0)))
        and not paused
        and state not in {"claimed", "running"}
    )
    about = {"name": name, "when": times.when, "next_us": times.next_us, "state": state, "paused": paused}
    more = {"paused_until": until if paused and until > 1 else None, "late_since": times.due_us if late else None}
    return msgspec.convert({**known, **about, **more}, JobStatus, strict=False)


def is_paused(paused: object, now_us: int) -> bool:
    """Return whether fire times pass now, given what the record says: 0, 1, or until when. Pure."""
    till = int(str(paused or 0))
    return till == 1 or till > now_us


def line_of(error: str) -> str:
    """Return the last line of a traceback, which says what went wrong."""
    return error.strip().rpartition("\n")[2][:LONGEST_LINE]


def _encoded(marks: Marks) -> bytes:
    return msgspec.json.encode(marks) if marks else b""
