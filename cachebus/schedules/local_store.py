"""What a process without a server knows of its jobs: the same steps, nobody to compete with, no lease to lose."""

from __future__ import annotations

import time
from typing import Any

from cachebus.schedules.decorators import Job
from cachebus.schedules.store import RUNS_KEPT, Answer, FinishedRun, JobRun, JobStatus, is_paused, line_of, status_of


class LocalJobs:
    """The records of this process's jobs. See `Jobs`."""

    def __init__(self) -> None:
        self._began_us = _now_us()
        self._records: dict[str, dict[str, Any]] = {}

    async def look(self) -> tuple[int, list[str]]:
        """See `Jobs.look`: nobody else can die."""
        return _now_us(), []

    async def claim(self, job: Job, fire_us: int, token: str) -> Answer:
        """See `Jobs.claim`."""
        record, now = self._record(job), _now_us()
        if fire_us > now:
            return Answer("early", (fire_us - now) // 1000 + 1)
        busy = record.get("state") in ("claimed", "running")
        word = self._why_not(job, record, fire_us, now) if fire_us else ""
        if not word and busy:
            word = "overlap"
        if word:
            counter = {"overlap": "overlaps", "misfire": "misfires"}.get(word)
            if counter is not None:
                record[counter] = record.get(counter, 0) + 1
            return Answer(word, 0)
        record.update(state="claimed", token=token, holder="this process", attempt=0, error="", progress="")
        record["fence"] = record.get("fence", 0) + 1
        return Answer("ours", record["fence"])

    def _why_not(self, job: Job, record: dict[str, Any], fire_us: int, now: int) -> str:
        """Note a fire time; return the word for why it is not run, '' if it is."""
        last = record.get("last_fire")
        if last is not None and fire_us <= last:
            return "taken"
        record["last_fire"] = fire_us
        if last is None and fire_us < self._began_us:
            return "before"
        if is_paused(record.get("paused"), now):
            return "paused"
        late = now - fire_us > job.late_ms * 1000
        return "misfire" if late and job.misfire == "skip" else ""

    async def reclaim(self, _job: Job, _token: str) -> JobRun | str:
        """See `Jobs.reclaim`: there is nothing that a dead worker left."""
        return "alive"

    async def start(self, run: JobRun) -> bool:
        """See `Jobs.start`."""
        self._record(run.job).update(state="running", attempt=1, started=_now_us())
        return True

    async def renew(self, run: JobRun) -> bool:
        """See `Jobs.renew`: there is no lease, but people look at the progress."""
        self._record(run.job)["progress"] = run.progress
        return True

    async def finish(self, run: JobRun, error: str, duration_ms: float) -> bool:
        """See `Jobs.finish`."""
        record, outcome = self._record(run.job), "failed" if error else "done"
        record.update(state=outcome, outcome=outcome, error=error, duration_ms=duration_ms, finished=_now_us())
        record.update(progress=run.progress, runs=record.get("runs", 0) + 1)
        ended = FinishedRun(record["finished"], duration_ms, outcome, line_of(error), record.get("holder", ""))
        record["history"] = [ended, *record.get("history", [])][:RUNS_KEPT]
        return True

    async def release(self, run: JobRun) -> bool:
        """See `Jobs.release`: it ends with the process."""
        self._record(run.job).update(state="cancelled", outcome="cancelled", progress=run.progress)
        return True

    async def pause(self, job: Job, *, paused: bool, until_us: int = 0) -> None:
        """See `Jobs.pause`."""
        self._record(job)["paused"] = str((until_us or 1) if paused else 0)

    async def status(self, job: Job) -> JobStatus:
        """See `Jobs.status`."""
        return status_of(job, self._record(job), _now_us())

    def _record(self, job: Job) -> dict[str, Any]:
        return self._records.setdefault(job.name, {})


def _now_us() -> int:
    return time.time_ns() // 1000
