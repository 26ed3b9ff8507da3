"""What an admin may do from the page. Each takes what it is asked as a type, and answers with what it did."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, NamedTuple

import msgspec

from cachebus.bus.dead_letters import told, watched
from cachebus.cache.cache import Cache
from cachebus.errors import ConfigurationError
from cachebus.locks.locks import Locks
from cachebus.monitoring.advice.analysis import start_analysis
from cachebus.monitoring.advice.report import Report
from cachebus.monitoring.forgetting import Forgetting
from cachebus.monitoring.page.purge import Purge
from cachebus.monitoring.page.tabs import keys
from cachebus.monitoring.page.tabs.failures import Failures, LetterFilter
from cachebus.monitoring.sockets import open_sockets
from cachebus.monitoring.verdict.chronicle import Chronicle
from cachebus.monitoring.verdict.gathering import Gathering
from cachebus.monitoring.wording import counted
from cachebus.schedules.known_jobs import known_jobs, pause_job, run_job_somewhere
from cachebus.sessions.store import SessionStore

log = logging.getLogger("cachebus")

MOST_WATCHED = 100
"""Letters whose outcome is waited for; of more it is told how many were put back."""
MOST_MINUTES = 31 * 24 * 60
_LETTER_ID = re.compile(r"\d{1,20}-\d{1,20}")


class Letters(msgspec.Struct, forbid_unknown_fields=True):
    """Dead letters by id, or all that match."""

    ids: list[str] = []
    match: LetterFilter | None = None

    def __post_init__(self) -> None:
        for each in self.ids:
            if not _LETTER_ID.fullmatch(each):
                raise ValueError(f"{each!r} is not the id of a dead letter, such as 1700000000000-0")
        if bool(self.ids) == bool(self.match):
            raise ValueError("name letters by `ids`, or give `match` with what they have in common")


class EditedLetter(msgspec.Struct, forbid_unknown_fields=True):
    """A dead letter with another payload."""

    id: str
    payload: str
    """JSON."""


class NamedJob(msgspec.Struct, forbid_unknown_fields=True):
    """A job by name."""

    name: str
    paused: bool = False
    minutes: Annotated[int, msgspec.Meta(ge=0, le=MOST_MINUTES)] = 0
    """How long it is paused; 0: until somebody resumes it."""


class NamedLock(msgspec.Struct, forbid_unknown_fields=True):
    """A lock, and which of its holders is meant."""

    name: str
    token: int
    """The fencing number of that holder: a lock that somebody else has acquired meanwhile is left alone."""


class NamedUser(msgspec.Struct, forbid_unknown_fields=True):
    """A user by id."""

    user: str

    def __post_init__(self) -> None:
        if not self.user:
            raise ValueError("user: name one")


class NamedKey(msgspec.Struct, forbid_unknown_fields=True):
    """A key."""

    key: str


class ForMinutes(msgspec.Struct, forbid_unknown_fields=True):
    """How long something lasts."""

    minutes: int

    def __post_init__(self) -> None:
        if not 0 <= self.minutes <= MOST_MINUTES:
            raise ValueError(f"minutes: from 0 to {MOST_MINUTES}")


def _log_failure(analysis: asyncio.Task[Report]) -> None:
    if not analysis.cancelled() and (failed := analysis.exception()) is not None:
        log.warning("the analysis failed: %s", failed)


class Action(NamedTuple):
    """One thing that can be done; it is told who asks."""

    asks: type[Any]
    do: Callable[[Any, str], Awaitable[dict[str, Any]]]


class Actions:
    """Does things. Whoever calls has checked who asks, and written it down."""

    def __init__(self, cache: Cache, failures: Failures, sessions: SessionStore, gathering: Gathering) -> None:
        self._cache = cache
        self._client = cache.client
        self._letters = failures.letters
        self._failures = failures
        self._sessions = sessions
        self._gathering = gathering
        self._locks = Locks(cache.client, owner="live page")
        self._analysis: asyncio.Task[Report] | None = None
        self.verbs: dict[str, Action] = {
            "letters/retry": Action(Letters, self._retry),
            "letters/discard": Action(Letters, self._discard),
            "letters/edit": Action(EditedLetter, self._edit),
            "purge": Action(Purge, self._purge),
            "keys/refresh": Action(NamedKey, self._refresh),
            "users/forget": Action(NamedUser, self._forget),
            "sessions/end": Action(NamedUser, self._end_sessions),
            "browsers/disconnect": Action(NamedUser, self._disconnect),
            "locks/unlock": Action(NamedLock, self._unlock),
            "jobs/run": Action(NamedJob, self._run),
            "jobs/pause": Action(NamedJob, self._pause),
            "alerts/silence": Action(ForMinutes, self._silence),
            "advice/start": Action(ForMinutes, self._analyse),
        }
        """Address below `page/api/` -> what is done."""

    # -- events -----------------------------------------------------------------------------------------------------

    async def _retry(self, asked: Letters, _who: str) -> dict[str, Any]:
        """Put letters back and watch what becomes of them: that is what whoever asked wants to know."""
        ids = await self._failures.matching(asked.match) if asked.match is not None else asked.ids
        if len(ids) > MOST_WATCHED:
            number = await self._letters.replay(ids)
            return {"done": f"{number:,} of {len(ids):,} put back; what fails again is a dead letter again"}
        letters = [letter for each in ids if (letter := await self._letters.show(each)) and letter.replayable]
        number = await self._letters.replay([letter.letter_id for letter in letters])
        outcomes = await watched(self._letters, letters)
        done = f"{number} of {len(ids)} put back{told(outcomes)}"
        return {"done": done, "outcomes": [each._asdict() for each in outcomes]}

    async def _discard(self, asked: Letters, _who: str) -> dict[str, Any]:
        ids = await self._failures.matching(asked.match) if asked.match is not None else asked.ids
        number = 0
        for first in range(0, len(ids), 500):
            number += await self._letters.purge(ids[first : first + 500])
        return {"done": f"{number:,} of {len(ids):,} discarded"}

    async def _edit(self, asked: EditedLetter, _who: str) -> dict[str, Any]:
        before = await self._letters.show(asked.id)
        if before is None:
            return {"done": "this letter is gone; nothing was done"}
        if not await self._letters.replay_changed(asked.id, asked.payload.encode()):
            raise ConfigurationError(f"a letter of this kind ({before.kind}) has no payload that can be edited")
        (outcome,) = await watched(self._letters, [before])
        return {"done": f"put back with the new payload{told([outcome])}", "outcomes": [outcome._asdict()]}

    # -- values and people ------------------------------------------------------------------------------------------

    async def _purge(self, asked: Purge, _who: str) -> dict[str, Any]:
        names = await asked.names(self._cache)
        clock = ""
        for prefix in names.prefixes:
            clock = await self._cache.invalidate(prefix=prefix)
        if names.keys or names.tags:
            clock = await self._cache.invalidate(keys=names.keys, tags=names.tags)
        return {"done": f"purged at clock {clock}"}

    async def _refresh(self, asked: NamedKey, _who: str) -> dict[str, Any]:
        return {"done": f"{asked.key}: {await keys.refresh(self._cache, asked.key)}"}

    async def _forget(self, asked: NamedUser, _who: str) -> dict[str, Any]:
        forgetting = Forgetting(self._cache, asked.user, shards=self._gathering.shards, step=lambda _: None)
        receipt = await forgetting.run(delete=True)
        return {"done": f"user {asked.user} is forgotten", "receipt": msgspec.to_builtins(receipt)}

    async def _end_sessions(self, asked: NamedUser, _who: str) -> dict[str, Any]:
        number = await self._sessions.invalidate_user(asked.user)
        return {"done": f"{counted(number, 'session')} ended"}

    async def _disconnect(self, asked: NamedUser, _who: str) -> dict[str, Any]:
        found = await open_sockets(self._client, asked.user, close=True)
        number = sum(len(each.open) for each in found)
        return {"done": f"{counted(number, 'socket')} closed; who is still signed in comes back"}

    # -- locks and jobs ---------------------------------------------------------------------------------------------

    async def _unlock(self, asked: NamedLock, _who: str) -> dict[str, Any]:
        taken = await self._locks.unlock(asked.name, asked.token)
        said = "taken away" if taken else "that holder does not have it any more; nothing was done"
        return {"done": f"lock {asked.name!r}: {said}"}

    async def _run(self, asked: NamedJob, _who: str) -> dict[str, Any]:
        await self._known(asked)
        scheduler = self._gathering.scheduler
        if scheduler is not None and asked.name in scheduler.jobs:
            said = "started" if await scheduler.run_now(asked.name) else "running"
        else:
            said = await run_job_somewhere(self._client, asked.name)
        words = {"started": "started", "running": "is running already", "nobody": "no worker took it; nothing was done"}
        return {"done": f"{asked.name}: {words.get(said, said)}"}

    async def _pause(self, asked: NamedJob, _who: str) -> dict[str, Any]:
        await self._known(asked)
        until_us = self._client.now_us() + asked.minutes * 60_000_000 if asked.minutes > 0 else 0
        await pause_job(self._client, asked.name, paused=asked.paused, until_us=until_us)
        how_long = f" for {counted(asked.minutes, 'minute')}" if asked.paused and until_us else ""
        return {"done": f"{asked.name} {'paused' if asked.paused else 'resumed'}{how_long}"}

    async def _known(self, asked: NamedJob) -> None:
        scheduler = self._gathering.scheduler
        if scheduler is not None and asked.name in scheduler.jobs:
            return
        if asked.name not in {job.name for job in await known_jobs(self._client)}:
            raise ConfigurationError(f"there is no job {asked.name!r}")

    # -- the deployment ---------------------------------------------------------------------------------------------

    async def _silence(self, asked: ForMinutes, who: str) -> dict[str, Any]:
        await Chronicle(self._client).keep_silent(who, asked.minutes * 60_000)
        said = (
            f"nobody is told anything for {counted(asked.minutes, 'minute')}"
            if asked.minutes
            else "alerts are told again"
        )
        return {"done": said}

    async def _analyse(self, asked: ForMinutes, who: str) -> dict[str, Any]:
        self._analysis = await start_analysis(self._client, duration=f"{max(1, asked.minutes)}m", asked_by=who)
        self._analysis.add_done_callback(_log_failure)
        return {"done": f"recording for {counted(max(1, asked.minutes), 'minute')}"}
