"""What an admin may do from the page. Each takes what it is asked as a type, and answers with what it did."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple, Self

import msgspec

from cachebus import Cache, ConfigurationError
from cachebus.deadletters import DeadLetters
from cachebus.keys import scopes_to_invalidate
from cachebus.scheduler import Scheduler
from cachebus.sessions import SessionStore
from gateway.page.people import Names, of_user


class Letters(msgspec.Struct, forbid_unknown_fields=True):
    """Dead letters by id."""

    ids: list[str]


class Job(msgspec.Struct, forbid_unknown_fields=True):
    """A job by name."""

    name: str
    paused: bool = False


class User(msgspec.Struct, forbid_unknown_fields=True):
    """A user by id."""

    user: str


class Purge(msgspec.Struct, forbid_unknown_fields=True):
    """What is made unreadable: one name, of one kind."""

    kind: str
    """key, tag, prefix or user."""
    name: str

    @classmethod
    def of(cls, query: Mapping[str, str]) -> Self:
        """Read it from a query."""
        return cls(query.get("kind", ""), query.get("name", ""))

    def names(self, cache: Cache) -> Names:
        """Return what is invalidated, checked. Raises: ConfigurationError."""
        kinds: dict[str, Callable[[], Names]] = {
            "key": lambda: Names([self.name], [], []),
            "tag": lambda: Names([], [self.name], []),
            "prefix": lambda: Names([], [], [self.name]),
            "user": lambda: of_user(cache, self.name),
        }
        if self.kind not in kinds or not self.name:
            raise ConfigurationError(f"name what to purge: one of {', '.join(kinds)}")
        names = kinds[self.kind]()
        scopes_to_invalidate(keys=names.keys, tags=names.tags, prefixes=names.prefixes)
        return names


class Action(NamedTuple):
    """One thing that can be done."""

    asks: type[Any]
    do: Callable[[Any], Awaitable[dict[str, Any]]]


class Actions:
    """Does things. Whoever calls has checked who asks, and written it down."""

    def __init__(self, cache: Cache, letters: DeadLetters, sessions: SessionStore, scheduler: Scheduler | None) -> None:
        self._cache = cache
        self.letters = letters
        self._sessions = sessions
        self.verbs: dict[str, Action] = {
            "letters/retry": Action(Letters, self._retry),
            "letters/discard": Action(Letters, self._discard),
            "purge": Action(Purge, self._purge),
            "sessions/end": Action(User, self._end_sessions),
        }
        """Address below `page/api/` -> what is done."""
        if scheduler is not None:
            self._scheduler = scheduler
            self.verbs["jobs/run"] = Action(Job, self._run)
            self.verbs["jobs/pause"] = Action(Job, self._pause)

    async def sessions_of(self, user: str) -> list[dict[str, Any]]:
        """Return the live sessions of a user."""
        found = await self._sessions.list_user(user) if user else []
        return [
            {
                "ref": session.ref[:12],
                "ip": session.ip,
                "agent": session.user_agent,
                "since_ms": session.created_at.timestamp() * 1000,
                "seen_ms": session.last_seen_at.timestamp() * 1000,
            }
            for session in found
        ]

    async def _retry(self, asked: Letters) -> dict[str, Any]:
        number = await self.letters.replay(asked.ids)
        return {"done": f"{number} of {len(asked.ids)} handled again"}

    async def _discard(self, asked: Letters) -> dict[str, Any]:
        return {"done": f"{await self.letters.purge(asked.ids)} of {len(asked.ids)} thrown away"}

    async def _purge(self, asked: Purge) -> dict[str, Any]:
        names = asked.names(self._cache)
        clock = 0
        for prefix in names.prefixes:
            clock = await self._cache.invalidate(prefix=prefix)
        if names.keys or names.tags:
            clock = await self._cache.invalidate(keys=names.keys, tags=names.tags)
        return {"done": f"nobody reads it any more, since clock {int(clock)}"}

    async def _end_sessions(self, asked: User) -> dict[str, Any]:
        number = await self._sessions.invalidate_user(asked.user)
        return {"done": f"{number} session{'s' if number != 1 else ''} ended"}

    async def _run(self, asked: Job) -> dict[str, Any]:
        self._known(asked)
        begun = await self._scheduler.run_now(asked.name)
        return {"done": f"{asked.name} runs" if begun else f"{asked.name} runs already"}

    async def _pause(self, asked: Job) -> dict[str, Any]:
        self._known(asked)
        await self._scheduler.pause(asked.name, paused=asked.paused)
        return {"done": f"{asked.name} {'rests' if asked.paused else 'goes on'}"}

    def _known(self, asked: Job) -> None:
        if asked.name not in self._scheduler.jobs:
            raise ConfigurationError(f"there is no job {asked.name!r}")
