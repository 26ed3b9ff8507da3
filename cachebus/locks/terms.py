"""How a lock is acquired, what a holder knows of its own time, and the messages between them. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import msgspec

from cachebus.durations import Duration, milliseconds
from cachebus.errors import ConfigurationError
from cachebus.templates import NO_UTF8, has_surrogate, stored_name

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
    """How a lock is acquired: its name, its lease, how long to wait for it, and whether it is renewed. Checked.

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
                f"timeout: {self.timeout!r} is too short to be renewed in time; use {SHORTEST_RENEWED_MS} ms or more, "
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


def in_order(names: str | Iterable[str]) -> list[str]:
    """Return the names of several locks, or the one, each once, in the order in which everybody acquires them."""
    return [names] if isinstance(names, str) else sorted(set(names))


def checked_name(name: str) -> str:
    """Return the name a lock is stored under. Raises: ConfigurationError."""
    if type(name) is not str or name == "":
        raise ConfigurationError(f"name: {name!r} must be a text that says what is locked")
    if has_surrogate(name):
        raise ConfigurationError(f"name: {name!r} {NO_UTF8}")
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
    held: float
    """Seconds since it was acquired."""


class Attempt(msgspec.Struct, frozen=True):
    """The answer to an attempt: ours, with its fencing number, or who has it."""

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
