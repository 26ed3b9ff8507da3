"""How a lock is taken, what a holder knows by itself, and who waits in a process that has no server. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from cachebus.durations import Duration, milliseconds
from cachebus.errors import ConfigurationError
from cachebus.keys import stored_name

TIMEOUT = "30s"
"""As the field has it: long enough for a pause of the process, short enough to wait for after a crash."""
SHORTEST_RENEWED_MS = 300
"""A third of it is 100 ms: time for a renewal that is late, and one more."""
RENEWALS = 3
"""A lease is renewed when a third of it has passed."""
RETRIES = 20
"""A renewal that failed is tried again after a twentieth of the lease: an outage of six tenths of it loses no lock."""
NEVER_MS = 10**13


@dataclass(frozen=True, slots=True)
class Terms:
    """How a lock is taken: its name, its lease, how long to wait for it, and whether it is kept. Checked.

    Raises: ConfigurationError naming the field.
    """

    name: str
    timeout: Duration = TIMEOUT
    blocking_timeout: Duration | None = None
    renew: bool = True
    max_hold: Duration | None = None
    stored: str = field(init=False)
    """The name it is kept under."""
    lease_ms: int = field(init=False)
    wait_s: float | None = field(init=False)
    """None: as long as it takes; 0: not at all."""
    max_hold_ms: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "stored", checked_name(self.name))
        lease_ms = milliseconds(self.timeout, "timeout")
        if self.renew and lease_ms < SHORTEST_RENEWED_MS:
            raise ConfigurationError(
                f"timeout: {self.timeout!r} is too short to be renewed in time; take {SHORTEST_RENEWED_MS} ms or more, "
                "or renew=False"
            )
        if self.max_hold is not None and not self.renew:
            raise ConfigurationError("max_hold: a lock that is not renewed is held for its timeout; set that instead")
        max_hold_ms = NEVER_MS if self.max_hold is None else milliseconds(self.max_hold, "max_hold")
        wait = self.blocking_timeout
        wait_s = None if wait is None else 0.0 if wait == 0 else milliseconds(wait, "blocking_timeout") / 1000
        object.__setattr__(self, "lease_ms", min(lease_ms, max_hold_ms))
        object.__setattr__(self, "wait_s", wait_s)
        object.__setattr__(self, "max_hold_ms", max_hold_ms)


def checked_name(name: str) -> str:
    """Return the name a lock is stored under. Raises: ConfigurationError."""
    if type(name) is not str or name == "":
        raise ConfigurationError(f"name: {name!r} must be a text that says what is locked")
    return stored_name(name)


class Lease:
    """What a holder knows of its time. All counts from when it asked, never from the answer: it ends here first.

    Times are seconds of a clock that runs on while the machine sleeps.
    """

    __slots__ = ("_due_s", "_terms", "ends_s", "since_s")

    def __init__(self, terms: Terms, asked_s: float) -> None:
        self._terms = terms
        self.since_s = asked_s
        self.ends_s = asked_s + terms.lease_ms / 1000
        self._due_s = asked_s + terms.lease_ms / 1000 / RENEWALS

    def left_s(self, now_s: float) -> float:
        """Return for how long the lock is surely held; 0 when it may be somebody else's."""
        return max(0.0, self.ends_s - now_s)

    def to_ask_ms(self, now_s: float) -> int:
        """Return the lease to ask for now, 0 when none is due. Without an answer it is due again a twentieth later."""
        if not self._terms.renew or now_s < self._due_s:
            return 0
        self._due_s = now_s + self._terms.lease_ms / 1000 / RETRIES
        last_s = self.since_s + self._terms.max_hold_ms / 1000
        return 0 if last_s <= self.ends_s else min(self._terms.lease_ms, int((last_s - now_s) * 1000))

    def hurry(self, now_s: float) -> None:
        """Make asking due: somebody says that the lock is theirs."""
        self._due_s = min(self._due_s, now_s)

    def renewed(self, asked_s: float, lease_ms: int) -> None:
        """Note a renewal that was asked for at *asked_s*."""
        self.ends_s = max(self.ends_s, asked_s + lease_ms / 1000)
        self._due_s = max(self._due_s, asked_s + lease_ms / 1000 / RENEWALS)

    def next_s(self, now_s: float) -> float:
        """Return in how many seconds to look again: when asking is due, or the end has come."""
        at = min(self._due_s, self.ends_s) if self._terms.renew else self.ends_s
        return max(0.0, at - now_s)


class Holder(msgspec.Struct, frozen=True):
    """Who has a lock, for everyone to see."""

    owner: str
    token: int
    """Its fencing number."""
    remaining: float
    """Seconds until it is free if the holder dies now."""
    waiting: int


class Taken(msgspec.Struct, frozen=True):
    """The answer to a try: ours, with its fencing number, or who has it."""

    ours: bool
    token: int = 0
    owner: str = ""
    left_ms: int = 0
    """Until the holder's claim ends by itself."""
    place: str = ""
    """Ours in line, to come back to."""
    before: int = 0


class Wake(msgspec.Struct, frozen=True, array_like=True):
    """What the scripts publish to those who wait."""

    lock: str
    kind: str
    """`offer`: the claim may have it now. `held`: the claim has it."""
    claim: str
    left_ms: int
    dropped: str
    """The process whose places in line are gone, or ''."""


@dataclass(slots=True)
class _Line:
    claim: str = ""
    owner: str = ""
    token: int = 0
    ends_s: float = 0.0
    offered: bool = False
    waiting: deque[str] = field(default_factory=deque)


class LocalLocks:
    """The rules of the scripts for the tasks of one process, where there is no server. Nobody else sees these locks."""

    def __init__(self, tell: Callable[[Wake], None]) -> None:
        self._tell = tell
        self._lines: dict[str, _Line] = {}
        self._token = 0
        self._values: dict[str, tuple[int, bytes, float]] = {}

    def take(self, lock: str, claim: str, owner: str, lease_ms: int, *, wait: bool, now_s: float) -> Taken:
        """Take a lock that is free or offered; otherwise, if asked, stand in line. As `lock_take.lua`."""
        line = self._lines.setdefault(lock, _Line())
        if line.claim and line.ends_s <= now_s:
            self._pass_on(lock, line)
            line = self._lines.setdefault(lock, line)
        if not line.claim or line.claim == claim:
            if claim in line.waiting:
                line.waiting.remove(claim)
            self._token += 1
            line.claim, line.owner, line.token = claim, owner, self._token
            line.ends_s, line.offered = now_s + lease_ms / 1000, False
            self._hold(lock, line, now_s)
            return Taken(ours=True, token=self._token)
        if wait and claim not in line.waiting:
            line.waiting.append(claim)
        left_ms = min(NEVER_MS, (line.ends_s - now_s) * 1000)
        return Taken(ours=False, owner=line.owner, left_ms=int(left_ms) + 1, before=len(line.waiting))

    def release(self, lock: str, claim: str, *, now_s: float) -> bool:
        """Give a lock back, or leave its line. As `lock_release.lua`."""
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
        """Keep a lock. As `lock_renew.lua`."""
        line = self._lines.get(lock)
        if line is None or line.claim != claim or line.ends_s <= now_s:
            return False
        line.ends_s = max(line.ends_s, now_s + lease_ms / 1000)
        self._hold(lock, line, now_s)
        return True

    def look(self, lock: str, *, now_s: float) -> Holder | None:
        """Return who has a lock. As `lock_look.lua`."""
        line = self._lines.get(lock)
        if line is None or not line.claim or line.offered or line.ends_s <= now_s:
            return None
        return Holder(line.owner, line.token, line.ends_s - now_s, len(line.waiting))

    def write(self, name: str, value: bytes, token: int, *, now_s: float, ends_s: float) -> int:
        """Keep a value unless a later token wrote before; return that token, or 0. As `lock_guarded_set.lua`."""
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
