"""Every error this library raises, in one tree. Names say what happened; attributes say to what.

CacheBusError
├── ConfigurationError            a setting, template or policy that cannot work; names the field and the fix
│   └── CannotStart               all that is wrong with a program's settings, one line each
├── NotCacheable                  a value that must not or cannot be stored
├── NotANumber                    an atomic value that cannot be counted; nothing was changed
├── LoadCycle                     a load that reads its own key; it would wait for itself
├── ServerError                   the server answered, or failed to
│   ├── Unavailable               no connection, or it was lost; nobody knows whether the command ran
│   │   └── ServerTimeout         no answer in time
│   ├── NotReady                  LOADING, BUSY, CLUSTERDOWN, MASTERDOWN, TRYAGAIN: wait and ask again
│   ├── ReadOnlyServer            READONLY: a replica; look for the primary
│   ├── ServerOutOfMemory         OOM: the write was refused, nothing changed
│   ├── AccessDenied              NOAUTH, WRONGPASS, NOPERM: only a person can mend it
│   ├── WrongType                 WRONGTYPE: the name is taken by something else
│   ├── UnknownScript             NOSCRIPT: answered by sending the script again
│   ├── Moved                     MOVED, ASK: the slot lives on another node
│   └── CommandRefused            any other error reply
├── PublishRefused                an event that was not accepted; nothing was stored
│   └── StreamFull                for now: so many wait already
├── NotDelayed                    no event waits under this id: published, cancelled, or never delayed
├── LockError
│   ├── LockNotAcquired           somebody else held it for all of `blocking_timeout`
│   ├── LockLost                  the lease ended, or was taken, before the body did
│   ├── LockUnavailable           the server cannot be asked who holds it
│   ├── AlreadyHeld               the holder asked again; it would wait for itself
│   └── StaleToken                a guarded write came after that of a later holder; it was refused
├── RecordingUnderWay             reads are being recorded already, for somebody else
├── RateLimited                   a call beyond a rate limit; it did not run
└── SessionError
    ├── SessionsUnavailable       the store cannot be asked; nobody was logged out
    ├── TooManySessions           the user has as many as allowed
    └── SessionConflict           somebody else changed it since
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence


class CacheBusError(Exception):
    """The root: `except CacheBusError` catches everything this library raises on purpose."""


class ConfigurationError(CacheBusError, ValueError):
    """A setting, template or policy cannot work. The message names the field and the fix."""


class CannotStart(ConfigurationError):
    """A program cannot start. `problems` has a line for each: the setting, its value, what is wrong, the fix."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class NotCacheable(CacheBusError, TypeError):
    """The value must not be stored (secrets, balances, live prices) or cannot be encoded."""


class NotANumber(CacheBusError, ValueError):
    """What is stored under a key, or the sum, is no whole number of 64 bits. Nothing was changed."""

    def __init__(self, key: str) -> None:
        super().__init__(f"key: {key!r} holds no whole number, or the sum has more than 64 bits; nothing was changed")
        self.key = key


class LoadCycle(CacheBusError, RecursionError):
    """A load reads its own key, directly or through other views. `chain` is the keys, each read by the one before."""

    def __init__(self, chain: Sequence[str]) -> None:
        super().__init__(f"{chain[0]}: the load reads its own key and would wait for itself: {' → '.join(chain)}")
        self.chain = tuple(chain)


class ServerError(CacheBusError):
    """The server refused a command, or could not be asked."""


class Unavailable(ServerError):
    """There is no working connection. A command that was under way may or may not have run."""


class ServerTimeout(Unavailable):
    """The server did not answer in time. The command may still run."""


class NotReady(ServerError):
    """The server is loading, busy with a script, or its cluster is down. The command did not run."""


class ReadOnlyServer(ServerError):
    """This node is a replica; the primary is elsewhere. The command did not run."""


class ServerOutOfMemory(ServerError):
    """`maxmemory` is reached and the server may not evict. The write did not happen."""


class AccessDenied(ServerError):
    """Wrong or missing credentials, or the user may not run this command. Retrying does not help."""


class WrongType(ServerError):
    """The name holds another type than the one this command works on."""


class UnknownScript(ServerError):
    """The server does not know the script's digest (restart, SCRIPT FLUSH)."""


class Moved(ServerError):
    """The slot is served by another node of the cluster.

    `address` is ("host", port); `ask` is true for a one-time redirect.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        kind, _slot, address = message.split()[:3]
        host, _, port = address.rpartition(":")
        self.address = (host, int(port))
        self.ask = kind == "ASK"


class CommandRefused(ServerError):
    """The server answered with an error that has no class of its own."""


class PublishRefused(CacheBusError):
    """The event was not accepted and nothing was stored. The message names the field and the fix."""


class StreamFull(PublishRefused):
    """As many events wait as there may be. The same event is accepted once there is room: publish it again later."""

    def __init__(self, channel: str, max_events: int) -> None:
        super().__init__(f"channel: {channel!r} not taken, {max_events:,} events wait already; is a worker running?")
        self.channel = channel
        self.max_events = max_events


class NotDelayed(CacheBusError):
    """No event waits under this id: it was published by now, was cancelled already, or was never delayed."""

    def __init__(self, id: str) -> None:  # noqa: A002 - the field's own name
        super().__init__(f"id: no event waits under {id!r}: it was published, cancelled, or never delayed")
        self.id = id


class LockError(CacheBusError):
    """Something about a distributed lock. `name` is the lock's."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(f"lock {name!r}: {message}")
        self.name = name


class LockNotAcquired(LockError):
    """Somebody else held the lock for as long as the caller was willing to wait."""


class LockLost(LockError):
    """The lease ended or was taken over while the body ran."""


class LockUnavailable(LockError):
    """The server cannot be asked, so nobody knows who holds the lock. Nothing is ever taken on suspicion."""


class AlreadyHeld(LockError):
    """The caller holds this lock already and would wait for itself."""


class StaleToken(LockError):
    """A guarded write carried an older fencing token than the one before it. Nothing was written."""


class RateLimited(CacheBusError):
    """A call was refused by a rate limit and did not run.

    `name`, `limit` and `window` (seconds) are the limit's. `retry_after` is the time in seconds until the call can
    pass; None when it costs more than the limit and never will.
    """

    def __init__(self, name: str, *, limit: int, window: float, retry_after: float | None) -> None:
        wait = "it can never pass" if retry_after is None else f"try again in {retry_after:.3f} s"
        super().__init__(f"rate limit {name!r}: more than {limit} in {window:g} s; {wait}")
        self.name = name
        self.limit = limit
        self.window = window
        self.retry_after = retry_after


class RecordingUnderWay(CacheBusError):
    """Reads are being recorded already; one recording runs at a time in a deployment. `asked_by` says for whom."""

    def __init__(self, asked_by: str, left_s: float) -> None:
        super().__init__(f"{asked_by} is recording for another {left_s:.0f} s; wait for that, or stop it there")
        self.asked_by = asked_by
        self.left_s = left_s


class SessionError(CacheBusError):
    """Something about users' sessions."""


class SessionsUnavailable(SessionError):
    """The session store cannot be asked. This is an outage (503), never a logout."""


class TooManySessions(SessionError):
    """The user has as many sessions as allowed, and the store refuses another. Nothing changed."""


class SessionConflict(SessionError):
    """Somebody else changed the session since the version that the caller named. Nothing changed."""
