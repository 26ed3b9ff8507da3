"""Runs jobs: every worker sees every fire time, one script gives it to exactly one of them, with the lease.

A run in order: claimed (fire time and lease in one step); the jitter is slept; started (a second step, refused to
whoever was replaced meanwhile); the body, its lease renewed at a third of its length; finished. A worker that is
stopped releases its runs. The runs of one that died are found by the others when the lease ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
import traceback
from collections.abc import Awaitable, Callable, Iterable

from cachebus.bus.engine.draining import Drainable, unless
from cachebus.cache.upkeep.popularity import Popularity
from cachebus.cache.upkeep.warming import Warm
from cachebus.clock import now_s
from cachebus.errors import ConfigurationError, ServerError, Unavailable
from cachebus.freshness.cause import caused_by
from cachebus.redis.client import Client, Connector
from cachebus.redis.connection import Connection
from cachebus.redis.server import Server
from cachebus.schedules.decorators import Job
from cachebus.schedules.local_store import LocalJobs
from cachebus.schedules.store import JobRun, Jobs, JobStatus
from cachebus.waiting import pass_on

__all__ = ["JobRun", "JobStatus", "Scheduler"]

log = logging.getLogger("cachebus")

LEASE_MS = 15_000
"""A dead worker's run is started again after this long; a living one renews at a third of it."""
LOOK_S = 2.0
"""How often runs whose worker died are looked for, and the server's time is compared; what falls due ends the wait.
Below the three seconds after which `look_at_jobs` takes the time without a look for an outage."""
AGAIN_S = 0.25
"""How soon what was not answered is asked again."""
BUDGET = 0.9
"""Of `max_run`: warming ends by itself before it would be cancelled."""
LONGEST_ERROR = 2_000


class Scheduler(Drainable):
    """Watches the clock for all jobs of a worker. `run` until cancelled; `drain` lets what runs finish.

    `Scheduler(cache, jobs)` or `Scheduler(client, jobs)`. Without a server jobs fire in this process, on its own clock,
    and nobody remembers them when it ends.
    """

    def __init__(
        self,
        connector: Connector,
        jobs: Iterable[Job],
        *,
        worker: str = "",
        warm: Callable[[JobRun], Warm] | None = None,
        lease_ms: int = LEASE_MS,
    ) -> None:
        super().__init__()
        self._connector = connector
        self._client: Client | None = None
        self.jobs: dict[str, Job] = {}
        for job in jobs:
            if self.jobs.setdefault(job.name, job) is not job:
                raise ConfigurationError(f"two jobs are called {job.name!r}; give one of them name=")
        self._id = secrets.token_hex(8)
        self._holder, self._lease_ms = worker or f"worker-{self._id}", lease_ms
        self._store: Jobs | LocalJobs = LocalJobs()
        self._warm = warm or self._warming
        if isinstance(connector, Client):
            self._over(connector)
        self._lease_s = lease_ms / 1000
        self._settled: dict[str, int] = {}
        """The newest fire time of each job of which this worker knows that nobody needs to take it any more."""
        self._refused: dict[str, str] = {}
        self._ahead_us = 0
        self._runs: dict[JobRun, asyncio.Task[None]] = {}
        self._looking = asyncio.Lock()
        self.started = 0
        """Bodies begun by this worker."""

    async def drain(self) -> None:
        """Start nothing more; return when what runs has finished. What only waits out its jitter is released."""
        self.draining = True
        async with self._looking:
            pass  # what a look under way has claimed is among the runs then
        for run, task in self._runs.items():
            if run.waiting:
                task.cancel()
        await asyncio.gather(*self._runs.values(), return_exceptions=True)
        await super().drain()

    async def _work(self, stop: asyncio.Future[None]) -> None:
        """Claim and run what falls due."""
        await self._connect()
        client = self._client
        if client is not None:
            client.welcomes.append(self._welcome)
        greeted = client is None
        while not stop.done():
            pause_s = AGAIN_S
            try:
                if client is not None:
                    await unless(stop, client.store.ready())
                    greeted = greeted or await self._greet(client.store)
                pause_s = await self.look()
            except ServerError as unavailable:
                log.debug("schedules wait: %s", unavailable)
            await asyncio.wait([stop], timeout=pause_s)

    async def _close(self) -> None:
        """Release the runs under way: another worker starts them at once."""
        if self._client is not None and self._welcome in self._client.welcomes:
            self._client.welcomes.remove(self._welcome)
        for task in self._runs.values():
            task.cancel()
        await asyncio.gather(*self._runs.values(), return_exceptions=True)

    # -- for people -------------------------------------------------------------------------------------------------

    async def status(self) -> list[JobStatus]:
        """Return what is known of every job. One round trip. Raises: ServerError."""
        await self._connect()
        return await asyncio.gather(*[self._store.status(job) for job in self.jobs.values()])

    async def pause(self, name: str, *, paused: bool = True, until_us: int = 0) -> None:
        """Let fire times of a job pass (or no longer), in every worker. Raises: KeyError, ServerError.

        *until_us*: until this time of the server's clock; otherwise until somebody resumes it.
        """
        await self._connect()
        await self._store.pause(self.jobs[name], paused=paused, until_us=until_us)

    async def run_now(self, name: str) -> bool:
        """Run a job here and now, whatever the time; False where it runs already. Raises: KeyError, ServerError."""
        job = self.jobs[name]
        await self._connect()
        token = secrets.token_hex(12)
        answer = await self._store.claim(job, 0, token)
        if answer.word == "dead":
            await self._reclaim(job)
            answer = await self._store.claim(job, 0, token)
        if answer.word != "ours":
            return False
        run = JobRun(job, token, answer.number, self.now_us())
        run.waiting = False
        self._begin(run)
        return True

    def said(self, name: str) -> str:
        """Return what a job that runs here last said of how far it is; '' where it said nothing."""
        return next((run.progress for run in self._runs if run.job.name == name), "")

    # -- the clock --------------------------------------------------------------------------------------------------

    def now_us(self) -> int:
        """Return the server's time, as compared at the last look; no process's wall clock takes part."""
        return self._clock_us() - self._ahead_us

    async def look(self) -> float:
        """Take what is due and what the dead left; return how many seconds may pass until the next look.

        One round trip if nothing is. `run` does this; call it where there is another loop. Raises: ServerError.
        """
        await self._connect()
        async with self._looking:
            return LOOK_S if self.draining else await self._look()

    async def _look(self) -> float:
        server_us, dead = await self._store.look()
        self._ahead_us = self._clock_us() - server_us
        pause_s = LOOK_S
        for name in dead:
            if name in self.jobs:
                await self._each(self.jobs[name], self._reclaim)
        for job in self.jobs.values():
            fire = job.times.last(self.now_us())
            if fire is not None and fire > self._settled.get(job.name, 0):
                pause_s = min(pause_s, await self._each(job, self._take))
        upcoming = [fire for job in self.jobs.values() if (fire := job.times.next(self.now_us())) is not None]
        return max(0.0, min([pause_s, *[(fire - self.now_us()) / 1e6 for fire in upcoming]]))

    async def _each(self, job: Job, act: Callable[[Job], Awaitable[float]]) -> float:
        """Do something to one job; what the server refuses for it is no reason to leave the others alone."""
        try:
            pause_s = await act(job)
        except Unavailable:
            raise
        except ServerError as refused:
            if self._refused.get(job.name) != str(refused):
                log.error("%s: the server refuses: %s", job.name, refused)  # noqa: TRY400 - told once, not a bug here
                self._refused[job.name] = str(refused)
            return LOOK_S
        self._refused.pop(job.name, None)
        return pause_s

    async def _take(self, job: Job) -> float:
        """Claim the newest fire time of a job; return in how many seconds to ask again if it cannot be said yet."""
        fire = job.times.last(self.now_us())
        assert fire is not None  # noqa: S101 - it is due
        token = f"{self._id}:{fire}"  # the same when the answer is lost and the question repeated
        answer = await self._store.claim(job, fire, token)
        if answer.word == "dead":
            await self._reclaim(job)
            answer = await self._store.claim(job, fire, token)
        if answer.word in ("early", "dead"):
            return min(LOOK_S, max(1, answer.number) / 1000)
        self._settled[job.name] = fire
        if answer.word == "ours":
            self._begin(JobRun(job, token, answer.number, fire))
        elif answer.word in ("overlap", "misfire"):
            log.warning("%s: a fire time was passed over: %s", job.name, answer.word)
        return LOOK_S

    async def _reclaim(self, job: Job) -> float:
        """Start once more what a dead worker had begun, if that may be."""
        found = await self._store.reclaim(job, secrets.token_hex(12))
        if isinstance(found, JobRun):
            log.warning("%s: its worker died or was stopped; started once more", job.name)
            self._begin(found)
        elif found == "died":
            log.error("%s: its worker died; this fire time is not started again", job.name)
        return LOOK_S

    # -- a run ------------------------------------------------------------------------------------------------------

    def _begin(self, run: JobRun) -> None:
        task = asyncio.create_task(self._run(run), name=f"job {run.job.name}")
        self._runs[run] = task
        task.add_done_callback(lambda _: self._runs.pop(run, None))

    async def _run(self, run: JobRun) -> None:
        """Run the body under a renewed lease, and say how it went."""
        lease = asyncio.create_task(self._keep_lease(run))
        body = asyncio.create_task(self._body(run))
        try:
            await asyncio.wait((lease, body), return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            await _end(body)
            await _end(lease)
            with contextlib.suppress(ServerError):  # then the lease runs out
                await (self._store.release(run) if body.cancelled() else self._finish(run, body))
            raise
        lost = not body.done()
        await _end(body)
        await _end(lease)
        if lost or not run.began:
            log.warning("%s: the lease was lost; its run was ended", run.job.name)
        elif not await self._until_answered(lambda: self._finish(run, body)):
            log.warning("%s: another worker took it over before its end was recorded", run.job.name)

    async def _finish(self, run: JobRun, body: asyncio.Task[str]) -> bool:
        error = "it was cancelled from within" if body.cancelled() else body.result()
        return await self._store.finish(run, error, (time.perf_counter() - run.began) * 1000)

    async def _body(self, run: JobRun) -> str:
        """Wait out the jitter, take the second step, call the function; return what went wrong, '' if nothing did."""
        job = run.job
        if run.waiting:
            late_ms = (self.now_us() - run.fire_us) / 1000
            await asyncio.sleep(max(0.0, job.delay_ms(run.fire_us) - late_ms) / 1000)
            run.waiting = False
        if not await self._until_answered(lambda: self._store.start(run)):
            return ""
        run.began = time.perf_counter()
        self.started += 1
        try:
            async with asyncio.timeout(job.max_run_ms / 1000) as limit:
                with caused_by("schedule", job.name):
                    await (job.function(warm=self._warm(run)) if job.wants_warm else job.function())
        except BaseException as failed:  # noqa: BLE001 - whatever a job raises is its outcome, also `sys.exit`
            pass_on(failed, asyncio.CancelledError)
            if limit.expired():
                log.warning("%s was cancelled after max_run, %g s", job.name, job.max_run_ms / 1000)
                return f"cancelled after {job.max_run_ms / 1000:g} s (max_run)"
            log.warning("%s failed: %r", job.name, failed)
            return "".join(traceback.format_exception(failed))[-LONGEST_ERROR:]
        return ""

    async def _keep_lease(self, run: JobRun) -> None:
        """Renew the lease; return when it is lost, or could not be renewed for its whole length."""
        renewed, pause_s = now_s(), self._lease_s / 3
        while True:
            await asyncio.sleep(pause_s)
            asked = now_s()
            try:
                if not await self._store.renew(run):
                    return
                renewed, pause_s = asked, self._lease_s / 3
            except ServerError:
                if asked - renewed > self._lease_s:
                    return
                pause_s = min(AGAIN_S, self._lease_s / 3)

    async def _until_answered(self, step: Callable[[], Awaitable[bool]]) -> bool:
        """Repeat a step of a run until the server has said yes or no."""
        while True:
            try:
                return await step()
            except ServerError as unanswered:
                log.debug("a step of a run is repeated: %s", unanswered)
                await asyncio.sleep(AGAIN_S)

    # -- where jobs are recorded ------------------------------------------------------------------------------------

    async def _connect(self) -> None:
        """Find the store of the present connection: the server's, or that of this process alone."""
        client = await self._connector.connection()
        if client is None:
            self._client, self._store = None, self._connector.in_process.of(LocalJobs)
        elif client is not self._client:
            self._over(client)

    def _over(self, client: Client) -> None:
        self._client = client
        self._store = Jobs(client, holder=self._holder, lease_ms=self._lease_ms)

    def _clock_us(self) -> int:
        return self._client.now_us() if self._client is not None else time.time_ns() // 1000

    def _warming(self, run: JobRun) -> Warm:
        """Return what a body that asks for it warms with."""
        counted = self._connector.in_process.of(Popularity)
        return Warm(self._client, run.say, run.marks, budget=run.job.max_run_ms * BUDGET / 1000, counted=counted)

    # -- the server -------------------------------------------------------------------------------------------------

    async def _welcome(self, connection: Connection) -> None:
        """On a new connection, before anyone uses it: does the server still know what was claimed?"""
        try:
            await self._greet(connection)
        except ServerError as refused:
            if connection.lost.done():
                raise
            log.warning("schedules could not greet the server: %s", refused)

    async def _greet(self, server: Server | Connection) -> bool:
        assert isinstance(self._store, Jobs)  # noqa: S101 - only a server can forget
        if forgotten := await self._store.greet(server, self._settled):
            log.warning("redis lost the last fire times of %d jobs; restored, they are not started again", forgotten)
        return True


async def _end(task: asyncio.Task[None] | asyncio.Task[str]) -> None:
    """Cancel a task and wait until it has ended."""
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
