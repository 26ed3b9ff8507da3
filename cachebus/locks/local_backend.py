"""Locks inside one process that has no server: the same calls, the same order, the same errors."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from weakref import WeakSet

from cachebus.clock import now_s
from cachebus.locks.terms import NEVER_MS, Attempt, Holder, Wake


@dataclass(slots=True)
class _Line:
    claim: str = ""
    owner: str = ""
    token: int = 0
    ends_s: float = 0.0
    since_s: float = 0.0
    offered: bool = False
    waiting: deque[str] = field(default_factory=deque)


class LockLines:
    """Who has which lock, and who waits for it: the rules of the scripts inside one process. No clock of its own."""

    def __init__(self) -> None:
        self.listeners: WeakSet[LocalLocks] = WeakSet()
        """Each `Locks` of this process, as long as it lives."""
        self._lines: dict[str, _Line] = {}
        self._token = int(time.time() * 1_000_000)  # as on a server: greater than any before a restart
        self._values: dict[str, tuple[int, bytes, float]] = {}

    def take(self, lock: str, claim: str, owner: str, lease_ms: int, *, wait: bool, now_s: float) -> Attempt:
        """Acquire a lock that is free or offered; otherwise, if asked, queue for it. As `take.lua`."""
        line = self._lines.setdefault(lock, _Line())
        if line.claim and line.ends_s <= now_s:
            self._pass_on(lock, line)
            line = self._lines.setdefault(lock, line)
        if not line.claim or line.claim == claim:
            if claim in line.waiting:
                line.waiting.remove(claim)
            self._token += 1
            if line.claim != claim or line.offered:
                line.since_s = now_s
            line.claim, line.owner, line.token = claim, owner, self._token
            line.ends_s, line.offered = now_s + lease_ms / 1000, False
            self._hold(lock, line, now_s)
            return Attempt(ours=True, token=self._token)
        if wait and claim not in line.waiting:
            line.waiting.append(claim)
        left_ms = min(NEVER_MS, (line.ends_s - now_s) * 1000)
        return Attempt(ours=False, owner=line.owner, left_ms=int(left_ms) + 1, before=len(line.waiting))

    def release(self, lock: str, claim: str, *, now_s: float) -> bool:
        """Release a lock, or leave its queue. As `release.lua`."""
        line = self._lines.get(lock)
        if line is None:
            return False
        if claim in line.waiting:
            line.waiting.remove(claim)
        if line.claim != claim:
            return False
        in_time = line.ends_s > now_s
        self._pass_on(lock, line)
        return in_time

    def renew(self, lock: str, claim: str, lease_ms: int, *, now_s: float) -> bool:
        """Renew a lock. As `renew.lua`."""
        line = self._lines.get(lock)
        if line is None or line.claim != claim or line.ends_s <= now_s:
            return False
        line.ends_s = max(line.ends_s, now_s + lease_ms / 1000)
        self._hold(lock, line, now_s)
        return True

    def unlock(self, lock: str, token: int, *, now_s: float) -> bool:
        """Take a lock away from its holder. As `unlock.lua`."""
        line = self._lines.get(lock)
        if line is None or self.look(lock, now_s=now_s) is None or line.token != token:
            return False
        self._pass_on(lock, line)
        if not line.claim:
            self._tell(Wake(lock, "offer", "", 0, ""))  # the holder hears of it and asks
        return True

    def look(self, lock: str, *, now_s: float) -> Holder | None:
        """Return who has a lock. As `look.lua`."""
        line = self._lines.get(lock)
        if line is None or not line.claim or line.offered or line.ends_s <= now_s:
            return None
        return Holder(line.owner, line.token, line.ends_s - now_s, len(line.waiting), now_s - line.since_s)

    def write(self, name: str, value: bytes, token: int, *, now_s: float, ends_s: float) -> int:
        """Keep a value unless a later token wrote before; return that token, or 0. As `guarded_set.lua`."""
        last, _, until_s = self._values.get(name, (0, b"", 0.0))
        if last > token and until_s > now_s:
            return last
        self._values[name] = (token, value, ends_s)
        return 0

    def read(self, name: str, *, now_s: float) -> tuple[int, bytes] | None:
        """Return what was written under *name*, and its token."""
        token, value, until_s = self._values.get(name, (0, b"", 0.0))
        return (token, value) if until_s > now_s else None

    def _hold(self, lock: str, line: _Line, now_s: float) -> None:
        if line.waiting:
            self._tell(Wake(lock, "held", line.claim, int((line.ends_s - now_s) * 1000) + 1, ""))

    def _pass_on(self, lock: str, line: _Line) -> None:
        """Offer it to the next in line. A task of this process answers or leaves the line, so an offer has no end."""
        if not line.waiting:
            del self._lines[lock]
            line.claim = ""
            return
        line.claim, line.owner, line.ends_s, line.offered = line.waiting[0], "", float("inf"), True
        self._tell(Wake(lock, "offer", line.claim, NEVER_MS, ""))

    def _tell(self, wake: Wake) -> None:
        for locks in tuple(self.listeners):
            locks.hear(wake)


class LocalLocks:
    """Locks of this process alone, for `REDIS_ENABLED=false`. Never fails."""

    def __init__(self, lines: LockLines, owner: str, hear: Callable[[Wake], None]) -> None:
        self._lines = lines
        self._owner = owner
        self.hear = hear
        lines.listeners.add(self)

    async def take(self, lock: str, claim: str, lease_ms: int, *, wait: bool, place: str) -> Attempt:
        """See `LockBackend.take`."""
        return self._lines.take(lock, claim, self._owner, lease_ms, wait=wait, now_s=now_s())

    async def release(self, lock: str, claim: str) -> bool:
        """See `LockBackend.release`."""
        return self._lines.release(lock, claim, now_s=now_s())

    async def renew(self, lock: str, claim: str, lease_ms: int, *, timeout_s: float) -> bool:
        """See `LockBackend.renew`."""
        return self._lines.renew(lock, claim, lease_ms, now_s=now_s())

    async def unlock(self, lock: str, token: int) -> bool:
        """See `LockBackend.unlock`."""
        return self._lines.unlock(lock, token, now_s=now_s())

    async def look(self, lock: str) -> Holder | None:
        """See `LockBackend.look`."""
        return self._lines.look(lock, now_s=now_s())

    async def write(self, name: str, value: bytes, token: int, ttl_ms: int) -> int:
        """See `LockBackend.write`."""
        now = now_s()
        return self._lines.write(name, value, token, now_s=now, ends_s=now + ttl_ms / 1000)

    async def read(self, name: str) -> tuple[int, bytes] | None:
        """See `LockBackend.read`."""
        return self._lines.read(name, now_s=now_s())

    async def listen(self) -> bool:
        """See `LockBackend.listen`: wakes are heard from the beginning."""
        return True

    async def ready(self) -> None:
        """See `LockBackend.ready`."""

    async def close(self) -> None:
        """See `LockBackend.close`."""
        self._lines.listeners.discard(self)
