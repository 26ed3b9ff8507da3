"""Sessions inside one process that has no server: the rules of the scripts, verb for verb."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from cachebus.clock import now_s
from cachebus.sessions.backend import FoundSession, NewSession, SessionChange, WhenFull

SWEEP_EVERY = 1000
"""After this many logins users without a live session are removed: a server does that by the TTL of its keys."""


@dataclass(slots=True)
class _Record:
    digest: str
    version: int
    created_us: int
    seen_us: int
    idle_us: int
    last_us: int
    user: bytes
    ip: bytes
    agent: bytes
    lines: dict[bytes, bytes]
    """By the name of the field, in the order they were written."""

    def ends_us(self) -> int:
        return min(self.seen_us + self.idle_us, self.last_us)

    def found(self, noted_us: int | None = None) -> FoundSession:
        header = b"%d %d %d %d %d" % (self.version, self.created_us, self.seen_us, self.idle_us, self.last_us)
        text = b"\n".join([header, self.user, self.ip, self.agent, *self.lines.values()])
        return FoundSession(self.digest, text, noted_us)


@dataclass(slots=True)
class _User:
    records: dict[str, _Record] = field(default_factory=dict)
    rotated: dict[str, tuple[int, str]] = field(default_factory=dict)
    """Digest of an id that was rotated away -> until when it works, and the digest it leads to."""


class LocalSessions:
    """Implements `SessionBackend` in memory; shared by every `SessionStore` of its cache. Never fails."""

    def __init__(self) -> None:
        self._users: dict[str, _User] = {}
        self._created = 0
        self._epoch_s = time.time() - now_s()

    async def create(self, address: str, new: NewSession, most: int, when_full: WhenFull) -> list[str] | None:
        """See `SessionBackend.create`."""
        now_us = self._now_us()
        user = self._users.get(address) or _User()
        evicted: list[str] = []
        if most:
            live = sorted(self._live(user, now_us), key=lambda record: record.created_us)
            if len(live) >= most and when_full == "refuse":
                return None
            evicted = [record.digest for record in live[: max(0, len(live) - most + 1)]]
        for digest in evicted:
            del user.records[digest]
        user.records[new.digest] = _Record(
            new.digest,
            version=1,
            created_us=now_us,
            seen_us=now_us,
            idle_us=new.idle_us,
            last_us=now_us + new.absolute_us,
            user=new.user,
            ip=new.ip,
            agent=new.agent,
            lines={_name(line): line for line in new.lines},
        )
        self._users[address] = user
        self._tidy(address, now_us)
        self._created += 1
        if self._created % SWEEP_EVERY == 0:
            for other in tuple(self._users):
                self._tidy(other, now_us)
        return evicted

    async def read(self, address: str, digest: str, touch_us: int, ip: bytes, agent: bytes) -> FoundSession | None:
        """See `SessionBackend.read`."""
        now_us = self._now_us()
        record = self._find(address, digest, now_us)
        if record is None:
            return None
        found = record.found()
        if record.seen_us + min(touch_us, record.idle_us / 10) > now_us:
            return found
        record.seen_us, record.ip, record.agent = now_us, ip or record.ip, agent or record.agent
        return found._replace(noted_us=now_us)

    async def update(
        self, address: str, digest: str, change: SessionChange
    ) -> FoundSession | Literal["conflict", "too large"] | None:
        """See `SessionBackend.update`."""
        now_us = self._now_us()
        record = self._find(address, digest, now_us)
        if record is None:
            return None
        if change.version not in (0, record.version):
            return "conflict"
        changed = dict(zip(change.pairs[::2], change.pairs[1::2], strict=True))
        lines = {name: line for name, line in record.lines.items() if name not in changed}
        lines.update({name: line for name, line in changed.items() if line})
        if sum(map(len, lines.values())) + len(lines) > change.most_bytes:
            return "too large"
        record.lines, record.version, record.seen_us = lines, record.version + 1, now_us
        record.idle_us = change.idle_us or record.idle_us
        record.last_us = now_us + change.absolute_us if change.absolute_us else record.last_us
        return record.found()

    async def rotate(self, address: str, digest: str, new_digest: str, overlap_us: int) -> bool | None:
        """See `SessionBackend.rotate`."""
        now_us = self._now_us()
        record = self._find(address, digest, now_us)
        if record is None or record.digest != digest:
            return None if record is None else False
        user = self._users[address]
        del user.records[digest]
        record.digest, record.seen_us = new_digest, now_us
        user.records[new_digest] = record
        if overlap_us:
            user.rotated[digest] = (now_us + overlap_us, new_digest)
        self._tidy(address, now_us)
        return True

    async def end(self, address: str, digest: str) -> bool:
        """See `SessionBackend.end`."""
        now_us = self._now_us()
        record = self._find(address, digest, now_us)
        if record is not None:
            del self._users[address].records[record.digest]
            self._tidy(address, now_us)
        return record is not None

    async def end_all(self, address: str, kept: str) -> int:
        """See `SessionBackend.end_all`."""
        now_us = self._now_us()
        record = self._find(address, kept, now_us) if kept else None
        user = self._users.pop(address, None)
        live = len(self._live(user, now_us)) if user is not None else 0
        if record is None:
            return live
        self._users[address] = _User({record.digest: record})
        return live - 1

    async def end_everyone(self) -> int:
        """See `SessionBackend.end_everyone`."""
        users = len(self._users)
        self._users.clear()
        return users

    async def live(self, address: str) -> list[FoundSession]:
        """See `SessionBackend.live`."""
        user = self._users.get(address)
        return [record.found() for record in self._live(user, self._now_us())] if user is not None else []

    def _now_us(self) -> int:
        return int((self._epoch_s + now_s()) * 1_000_000)

    @staticmethod
    def _live(user: _User, now_us: int) -> Sequence[_Record]:
        return [record for record in user.records.values() if record.ends_us() > now_us]

    def _find(self, address: str, digest: str, now_us: int) -> _Record | None:
        """Return the live session of an id, also of one that was rotated away a moment ago."""
        user = self._users.get(address)
        if user is None:
            return None
        while digest in user.rotated:
            until_us, newer = user.rotated[digest]
            if until_us <= now_us:
                return None
            digest = newer
        record = user.records.get(digest)
        return record if record is not None and record.ends_us() > now_us else None

    def _tidy(self, address: str, now_us: int) -> None:
        """Remove what has ended, and the user with the last of it."""
        user = self._users[address]
        user.records = {record.digest: record for record in self._live(user, now_us)}
        user.rotated = {digest: entry for digest, entry in user.rotated.items() if entry[0] > now_us}
        if not user.records:
            del self._users[address]


def _name(line: bytes) -> bytes:
    return line.partition(b"\t")[0]
