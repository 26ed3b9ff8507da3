"""Limits, decisions, and the refusals that a process remembers. Pure."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import msgspec

from cachebus.durations import Duration, milliseconds
from cachebus.errors import ConfigurationError, RateLimited

STRATEGIES = ("sliding_window", "token_bucket", "fixed_window")
OUTAGES = ("open", "closed", "local")
LONGEST_LOG = 64
"""Up to this limit a sliding window remembers every request (1 KB); above it, ten sub-windows (150 bytes)."""
LARGEST_PRODUCT = 2**52
"""Limit times window in ms: up to here the scripts' doubles are whole numbers, and their quotients round right."""
KEPT = 10_000
"""How many refusals, and how many counters of its own, one process keeps; the least recently used are dropped first."""
CLOSED_RETRY_US = 1_000_000
"""What a rule that fails closed asks its caller to wait: about as long as a reconnect takes."""

_NAME = re.compile(r"[A-Za-z0-9_.:-]{1,64}")

Look = tuple[int, int, int]
"""What a counter answers: units free, us until this cost passes (0 it does, -1 never), us until more is free."""


@dataclass(frozen=True, slots=True)
class Limit:
    """At most `limit` units in `window`, counted by `strategy`; `on_outage` decides while the server is unavailable.

    `sliding_window`: never more than the limit in any window. `token_bucket`: refills steadily, bursts up to the limit.
    `fixed_window`: the cheapest; up to twice the limit around the edge of two windows.
    `local` counts in this process, `open` lets everything pass, `closed` nothing; a rule that guards a login chooses
    `local` or `closed`. `name` is what clients and metrics see; it never holds a key.
    Raises: ConfigurationError naming the field. Source: OWASP ASVS 5.0, 6.3.1 and 16.5.3 (on_outage).
    """

    limit: int
    window: Duration
    strategy: str = "sliding_window"
    on_outage: str = "local"
    name: str = "default"
    window_ms: int = field(init=False)
    kind: str = field(init=False)
    """How the counter is kept: the last word of its key, so a changed strategy never meets another one's data."""

    def __post_init__(self) -> None:
        if type(self.limit) is not int or self.limit < 1:
            raise ConfigurationError(f"limit: {self.limit!r} must be a whole number, at least 1")
        if self.strategy not in STRATEGIES:
            raise ConfigurationError(f"strategy: {self.strategy!r} is not one of {', '.join(STRATEGIES)}")
        if self.on_outage not in OUTAGES:
            raise ConfigurationError(f"on_outage: {self.on_outage!r} is not one of {', '.join(OUTAGES)}")
        if not _NAME.fullmatch(self.name):
            raise ConfigurationError(f"name: {self.name!r} must be 1 to 64 letters, digits, '_', '.', ':' or '-'")
        window_ms = milliseconds(self.window, "window")
        if self.limit * window_ms > LARGEST_PRODUCT:
            raise ConfigurationError(f"limit: {self.limit} in {self.window!r} is too large to be counted exactly")
        sliding = "log" if self.limit <= LONGEST_LOG else "windows"
        kinds = {"sliding_window": sliding, "token_bucket": "bucket", "fixed_window": "fixed"}
        object.__setattr__(self, "window_ms", window_ms)
        object.__setattr__(self, "kind", kinds[self.strategy])


class RateLimitResult(msgspec.Struct, frozen=True):
    """A decision. Unpacks to `(allowed, remaining)`, and is true when allowed. Times are seconds."""

    allowed: bool
    remaining: int
    limit: int
    reset_after: float
    """Until more quota comes back; 0 when nothing is used. Never beyond `retry_after`."""
    retry_after: float | None
    """Until a request of this cost can pass, 0 when it did. None: never, it costs more than the limit."""
    policy: Limit
    source: str = "server"
    """Who decided: `server`, `memory` (a remembered refusal), `local` (counted in this process), `open` or `closed`."""
    each: tuple[RateLimitResult, ...] = ()
    """Every limit's result when several were checked at once; this one is then the tightest."""

    def __iter__(self) -> Iterator[int]:
        yield self.allowed
        yield self.remaining

    def __bool__(self) -> bool:
        return self.allowed

    def refusal(self) -> RateLimited:
        """Return the error that a call beyond this limit raises."""
        rule = self.policy
        return RateLimited(rule.name, limit=rule.limit, window=rule.window_ms / 1000, retry_after=self.retry_after)


def result_of(limit: Limit, look: Look, source: str) -> RateLimitResult:
    """Return what a counter's answer means for a caller."""
    free, retry_us, reset_us = look
    return RateLimitResult(
        allowed=retry_us == 0,
        remaining=max(0, free),
        limit=limit.limit,
        reset_after=reset_us / 1e6,
        retry_after=None if retry_us < 0 else retry_us / 1e6,
        policy=limit,
        source=source,
    )


def tightest(results: Sequence[RateLimitResult]) -> RateLimitResult:
    """Return the result that decides for all: the refusal that lasts longest, else the least remaining."""
    if len(results) == 1:
        return results[0]

    def slack(result: RateLimitResult) -> float:
        wait = float("inf") if result.retry_after is None else result.retry_after
        return result.remaining if result.allowed else -wait

    return msgspec.structs.replace(min(results, key=slack), each=tuple(results))


class RememberedRefusals:
    """RememberedRefusals by counter, until the request that was refused can pass: asking before would be refused again.

    Only the very same request is answered from here: one of another cost has a `retry_after` of its own, which only
    the counter knows. Times count from before the question was sent, so nobody is refused here whom the server would
    let pass.
    """

    def __init__(self) -> None:
        self._standing: OrderedDict[str, tuple[Limit, int, int, Look]] = OrderedDict()
        self.drops = 0
        """Grows with every reset. A refusal asked for before one must not be remembered after it."""

    def remember(self, counter: str, limit: Limit, cost: int, asked_us: int, look: Look) -> None:
        """Keep a refusal of *cost* that was asked for at *asked_us*."""
        self._standing[counter] = (limit, cost, asked_us, look)
        self._standing.move_to_end(counter)
        if len(self._standing) > KEPT:
            self._standing.popitem(last=False)

    def find(self, counter: str, limit: Limit, cost: int, now_us: int) -> Look | None:
        """Return the refusal of *cost* units under this very limit, its waits as of now."""
        known = self._standing.get(counter)
        if known is None or known[:2] != (limit, cost):
            return None
        _, _, asked_us, (free, retry_us, reset_us) = known
        waited_us = now_us - asked_us
        if waited_us >= retry_us:
            del self._standing[counter]
            return None
        self._standing.move_to_end(counter)
        return free, retry_us - waited_us, max(0, reset_us - waited_us)

    def drop(self, counters: Sequence[str]) -> None:
        """Forget the refusals of these counters: they were reset."""
        self.drops += 1
        for counter in counters:
            self._standing.pop(counter, None)

    def clear(self) -> None:
        """Forget all: resets may have been missed."""
        self.drops += 1
        self._standing.clear()

    def __len__(self) -> int:
        return len(self._standing)
