"""How long a view's values live, and what each moment of that life allows. Pure: no I/O, `now` is an argument."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field
from enum import Enum

from cachebus.durations import Duration, milliseconds
from cachebus.errors import ConfigurationError

LONGEST_MS = 30 * 86_400_000
"""Nothing is cached longer: a value nobody asked to renew for a month is not a cache entry."""
JITTER = 0.1
"""A tenth of the TTL, taken off at random: entries written together do not expire together."""
EARLY_BETA = 1.0
"""XFetch's beta; 1 is the optimum for exponentially distributed draws. Source: Vattani et al., VLDB 2015."""
EARLY_REACH = 12.0
"""-ln(u) exceeds this once in 160,000 draws: earlier than that before expiry nobody needs to draw."""


class Age(Enum):
    """What the time since it was written makes of a valid entry."""

    FRESH = "fresh"
    EARLY = "fresh, but this caller should renew it in the background"
    STALE = "no longer fresh, within the stale window: serve it and renew it in the background"
    ERROR_ONLY = "may be served only when the load fails"
    DEAD = "gone"


@dataclass(frozen=True, slots=True)
class Policy:
    """What a view says about its values. Milliseconds; 0 switches a window off."""

    ttl_ms: int
    stale_ms: int = 0
    stale_if_error_ms: int = 0
    negative_ttl_ms: int = 0
    """TTL of `None`; 0: the same as any value."""
    serve_invalidated_ms: int = 0
    settle_ms: int = 0
    read_lag_us: int = 0
    soft_timeout_ms: int = 0
    """After this long a caller gets the old value, if it may have it, and the load goes on in the background."""
    hard_timeout_ms: int = 0
    """After this long a caller gets TimeoutError; the load goes on."""
    sliding: bool = False
    grace_ms: int = field(init=False)
    """How much longer than fresh an entry is kept."""

    def __post_init__(self) -> None:
        grace_ms = max(self.stale_ms, self.stale_if_error_ms, self.serve_invalidated_ms)
        object.__setattr__(self, "grace_ms", grace_ms)  # frozen: worked out once, asked for at each read

    def life_ms(self, ttl_ms: int, draw: float) -> int:
        """Return the key's time to live for a value fresh for *ttl_ms*; *draw* in [0, 1) is the jitter's."""
        return max(1, round(ttl_ms * (1 - JITTER * draw))) + self.grace_ms

    def age(self, fresh_left_ms: float, load_ms: float, draw: float) -> Age:
        """Decide about an entry that stays fresh for *fresh_left_ms* more (negative: not any more).

        *draw* in (0, 1] decides the early refresh: a share of callers, growing towards expiry and with the cost of the
        load, renews before anyone has to wait (XFetch).
        """
        if fresh_left_ms > 0:
            return Age.EARLY if -load_ms * EARLY_BETA * math.log(draw) >= fresh_left_ms else Age.FRESH
        late_ms = -fresh_left_ms
        if late_ms < self.stale_ms:
            return Age.STALE
        return Age.ERROR_ONLY if late_ms < self.stale_if_error_ms else Age.DEAD


def policy(  # noqa: PLR0913 - the one place where a view's options become a Policy
    what: str,
    *,
    ttl: Duration,
    stale: Duration | None = None,
    stale_if_error: Duration | None = None,
    negative_ttl: Duration | None = None,
    serve_invalidated: Duration | None = None,
    settle: Duration | None = None,
    read_lag: Duration | None = None,
    soft_timeout: Duration | None = None,
    hard_timeout: Duration | None = None,
    sliding: bool = False,
) -> Policy:
    """Return the policy these options describe. Raises: ConfigurationError naming the view and the option."""

    def ms(duration: Duration | None, option: str) -> int:
        return 0 if duration is None else milliseconds(duration, f"{what}: {option}")

    result = Policy(
        ttl_ms=milliseconds(ttl, f"{what}: ttl"),
        stale_ms=ms(stale, "stale"),
        stale_if_error_ms=ms(stale_if_error, "stale_if_error"),
        negative_ttl_ms=ms(negative_ttl, "negative_ttl"),
        serve_invalidated_ms=ms(serve_invalidated, "serve_invalidated"),
        settle_ms=ms(settle, "settle"),
        read_lag_us=ms(read_lag, "read_lag") * 1000,
        soft_timeout_ms=ms(soft_timeout, "soft_timeout"),
        hard_timeout_ms=ms(hard_timeout, "hard_timeout"),
        sliding=sliding,
    )
    if result.ttl_ms + result.grace_ms > LONGEST_MS:
        raise ConfigurationError(f"{what}: ttl with its stale windows is over {LONGEST_MS // 86_400_000} days")
    return result


def draw() -> float:
    """Return a random number in (0, 1]."""
    return 1.0 - random.random()  # noqa: S311 - spreads load, guards nothing
