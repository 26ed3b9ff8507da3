"""Runs jobs: every worker sees every fire time, one script gives it to exactly one of them, with the lease.

Claim and lease are one record, so there is no moment in which one exists without the other. `started` is a second step,
fenced by the token, right before the body: a worker that was stopped in between does not start what another one has
taken over by then.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
import traceback
from collections.abc import Callable, Iterable

import msgspec

from cachebus.errors import ServerError
from cachebus.link import Link
from cachebus.schedules import LATE_MS, Job
from cachebus.warming import Warm

log = logging.getLogger("cachebus")

LEASE_MS = 15_000
"""A dead worker's run is started again after this long; a living one renews at a third of it."""
LOOK_S = 1.0
"""How often runs whose worker died are looked for, and at least how often the clock is."""
LONGEST_ERROR = 2_000


class JobStatus(msgspec.Struct, frozen=True):
    """What is known of a job, everywhere the same. Times are microseconds of the server's clock; None: never yet."""

    name: str
    when: str
    state: str
    next_us: int | None
    last_fire: int | None = None
    holder: str = ""
    attempt: int = 0
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

    def __init__(self, job: Job, token: str, fence: int, fire_us: int) -> None:
        self.job = job
        self.token = token
        self.fence = fence
        self.fire_us = fire_us
        self.progress = ""


class Scheduler:
    """Watches the clock for all jobs of a worker. `run` until cancelled; `drain` lets what runs finish."""

    def __init__(
        self,
        link: Link,
        jobs: Iterable[Job],
        *,
        worker: str = "",
        warm: Callable[[Run], Warm] | None = None,
        lease_ms: int = LEASE_MS,
    ) -> None:
        self._link = link
        self.jobs = {job.name: job for job in jobs}
        self._worker = worker or f"worker-{secrets.token_hex(4)}"
        self._warm = warm
        self._lease_ms = lease_ms
        self._settled: dict[str, int] = {}
        """The newest fire time of each job that somebody has taken, as far as this worker knows."""
        self._runs: dict[str, asyncio.Task[None]] = {}
        self._draining = False
        self.started = 0

    async def run(self) -> None:
        """Claim and run what falls due, until cancelled; the runs under way are cancelled with it."""
        try:
            while True:
                try:
                    await self._link.store.ready()
                    await self._look()
                except ServerError as away:
                    log.debug("schedules wait: %s", away)
                await asyncio.sleep(self._pause_s())
        finally:
            for task in self._runs.values():
                task.cancel()
            await asyncio.gather(*self._runs.values(), return_exceptions=True)

    async def drain(self) -> None:
        """Start nothing more; return when what runs has finished."""
        self._draining = True
        await asyncio.gather(*self._runs.values(), return_exceptions=True)

    # -- for people -------------------------------------------------------------------------------------------------

    async def status(self) -> list[JobStatus]:
        """Return what is known of every job. One round trip each. Raises: ServerError."""
        return [await self._status(job) for job in self.jobs.values()]

    async def pause(self, name: str, *, paused: bool = True) -> None:
        """Let fire times of a job pass (or no longer), in every worker. Raises: KeyError, ServerError."""
        await self._link.store.call("HSET", self._key(self.jobs[name]), "paused", int(paused))

    async def run_now(self, name: str) -> bool:
        """Run a job here and now, whatever the time; False where it runs already. Raises: KeyError, ServerError."""
        return await self._claim(self.jobs[name], self._link.now_us(), now=True)

    async def _status(self, job: Job) -> JobStatus:
        reply = await self._link.store.call("HGETALL", self._key(job))
        facts = {reply[i].decode(): reply[i + 1].decode() for i in range(0, len(reply), 2)}
        known = {name: value for name, value in facts.items() if name in JobStatus.__struct_fields__}
        now = self._link.now_us()
        state = facts.get("state", "waiting")
        about = {"name": job.name, "when": job.description, "next_us": job.times.next(now), "state": state}
        return msgspec.convert({**known, **about, "paused": known.get("paused") == "1"}, JobStatus, strict=False)

    # -- the clock --------------------------------------------------------------------------------------------------

    async def _look(self) -> None:
        if self._draining:
            return
        now = self._link.now_us()
        for job in self.jobs.values():
            fire = job.times.last(now)
            if fire is not None and fire > self._settled.get(job.name, 0):
                await self._claim(job, fire)
        await self._take_over(now)

    def _pause_s(self) -> float:
        """Sleep until the next fire time, but look for the dead each second."""
        now = self._link.now_us()
        upcoming = [fire for job in self.jobs.values() if (fire := job.times.next(now)) is not None]
        return max(0.005, min(LOOK_S, *[(fire - now) / 1e6 for fire in upcoming])) if upcoming else LOOK_S

    async def _claim(self, job: Job, fire_us: int, *, now: bool = False) -> bool:
        token = secrets.token_hex(12)
        late_ms = LATE_MS + job.jitter_ms if job.misfire == "skip" else -1
        keys = (self._key(job), self._link.names.bus("jobs", "running"), self._link.names.ledger)
        args = (fire_us, token, self._lease_ms, self._worker, late_ms, int(now))
        word, number = await self._link.store.run("claim_job", keys, args)
        if word == b"early":  # our idea of the server's time is ahead: come back
            return False
        if not now:
            self._settled[job.name] = fire_us
        if word == b"ours":
            self._begin(Run(job, token, int(number), fire_us))
        elif word in (b"overlap", b"misfire"):
            log.warning("%s: fire time passed over: %s", job.name, word.decode())
        return bool(word == b"ours")

    async def _take_over(self, now_us: int) -> None:
        """Start once more what a dead worker had begun."""
        running = self._link.names.bus("jobs", "running")
        for key in await self._link.store.call("ZRANGEBYSCORE", running, "-inf", now_us):
            job = next((job for job in self.jobs.values() if self._key(job).encode() == key), None)
            if job is None:
                continue
            token = secrets.token_hex(12)
            args = (token, self._lease_ms, self._worker, 2 if job.on_death == "rerun" else 1)
            word, number = await self._link.store.run("reclaim_job", (self._key(job), running), args)
            if word == b"ours":
                log.warning("%s: its worker died; started once more", job.name)
                self._begin(Run(job, token, int(number), now_us))
            elif word == b"died":
                log.error("%s: its worker died again; not started any more for this fire time", job.name)

    # -- a run ------------------------------------------------------------------------------------------------------

    def _begin(self, run: Run) -> None:
        task = asyncio.create_task(self._run(run), name=f"job {run.job.name}")
        self._runs[run.token] = task
        task.add_done_callback(lambda _: self._runs.pop(run.token, None))

    async def _run(self, run: Run) -> None:
        """Wait out the jitter, take the second step, run the body under a renewed lease, say how it went."""
        body: asyncio.Task[None] = asyncio.create_task(self._body(run))
        renewal = asyncio.create_task(self._renew(run, body))
        began = time.perf_counter()
        error = ""
        try:
            await asyncio.wait_for(asyncio.shield(body), run.job.max_run_ms / 1000)
        except TimeoutError:
            error = f"cancelled after {run.job.max_run_ms / 1000:g} s (max_run)"
        except asyncio.CancelledError:
            if not body.cancelled():
                raise
            error = "the lease was lost; cancelled"
        except Exception as failed:  # noqa: BLE001 - whatever a job raises is its outcome
            error = "".join(traceback.format_exception(failed))[-LONGEST_ERROR:]
            log.warning("%s failed: %r", run.job.name, failed)
        finally:
            renewal.cancel()
            body.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await body
        with contextlib.suppress(ServerError):
            await self._step(run, "failed" if error else "done", error, (time.perf_counter() - began) * 1000)

    async def _body(self, run: Run) -> None:
        late_ms = (self._link.now_us() - run.fire_us) / 1000
        await asyncio.sleep(max(0.0, run.job.delay_ms(run.fire_us) - late_ms) / 1000)
        if not await self._step(run, "start"):
            raise asyncio.CancelledError
        self.started += 1
        if run.job.wants_warm:
            assert self._warm is not None, "a job that wants `warm` needs a cache"  # noqa: S101 - refused at start
            await run.job.function(warm=self._warm(run))
        else:
            await run.job.function()

    async def _renew(self, run: Run, body: asyncio.Task[None]) -> None:
        """Keep the lease; a lease that is lost, or could not be renewed for its whole length, ends the body."""
        renewed = time.monotonic()
        while True:
            await asyncio.sleep(self._lease_ms / 3000)
            try:
                if not await self._step(run, "renew"):
                    break
                renewed = time.monotonic()
            except ServerError:
                if (time.monotonic() - renewed) * 1000 > self._lease_ms:
                    break
        log.warning("%s: the lease was lost", run.job.name)
        body.cancel()

    async def _step(self, run: Run, step: str, error: str = "", duration_ms: float = 0.0) -> bool:
        keys = (self._key(run.job), self._link.names.bus("jobs", "running"))
        args = (run.token, self._lease_ms, step, error, f"{duration_ms:.1f}", run.progress)
        return bool(await self._link.store.run("keep_job", keys, args))

    def _key(self, job: Job) -> str:
        return self._link.names.bus("job", job.name)
