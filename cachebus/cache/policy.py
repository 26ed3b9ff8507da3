"""How long a view's values live, and what each moment of that life allows. Pure: no I/O, `now` is an argument."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Self, cast

from cachebus.durations import Duration, milliseconds
from cachebus.errors import ConfigurationError
from cachebus.freshness.scopes import names

LONGEST_MS = 30 * 86_400_000
"""Nothing is cached longer: a value nobody asked to renew for a month is not a cache entry."""
JITTER = 0.1
"""A tenth of the TTL, taken off at random: entries written together do not expire together."""
EARLY_BETA = 1.0
"""XFetch's beta; 1 is the optimum for exponentially distributed draws. Source: Vattani et al., VLDB 2015."""
EARLY_REACH = 12.0
"""-ln(u) exceeds this once in 160,000 draws: earlier than that before expiry nobody needs to draw."""
MAX_LOAD_MS = 60_000
"""After this long a load counts as hung: nobody joins it any more, and its lease ends."""

Tags = str | Iterable[str] | Callable[[Any], str | Iterable[str]]


class Age(Enum):
    """What the time since it was written makes of a valid entry."""

    FRESH = "fresh"
    EARLY = "fresh, but this caller should renew it in the background"
    STALE = "no longer fresh, within the stale window: serve it and renew it in the background"
    ERROR_ONLY = "may be served only when the load fails"
    DEAD = "gone"


SERVED = (Age.FRESH, Age.EARLY, Age.STALE)
"""Ages at which a valid value is served without a load."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The rarer options of a view, for its `policy=`. Durations as everywhere; None leaves an option off.

    One object may serve many views: `REPORTS = Policy(hard_timeout="2s", negative_ttl="10s")`.
    """

    keep: Callable[[Any], object] | None = None
    """Whether a loaded value is stored. One that is not is served to who waited, and loaded again by the next."""
    negative_ttl: Duration | None = None
    """TTL of `None`; otherwise it is that of any value."""
    serve_invalidated: Duration | None = None
    """Serve an invalidated value this long while it is renewed in the background; never to a `fresh_after` read."""
    settle: Duration | None = None
    """Under a storm of invalidations, obey at most one in this interval."""
    read_lag: Duration | None = None
    """How far the replica that the loader reads may be behind."""
    hard_timeout: Duration | None = None
    """After this a caller gets the old value if a stale window allows it, else TimeoutError; the load continues."""
    max_load: Duration | None = None
    """After this a load counts as hung, and the next caller loads again; 60 s. The load itself continues."""
    predict: bool = False
    """Load calls ahead that the same user is likely to make next (docs/explain/prediction.md). Needs an identity."""
    version: int | str = ""
    """Part of what values are stored under: change it when the calculation changes, and no old result is served."""


@dataclass(frozen=True, slots=True)
class ViewPolicy:
    """What a view says about its values, as its reads compare it. Milliseconds; 0 switches a window off."""

    ttl_ms: int
    stale_ms: int = 0
    stale_if_error_ms: int = 0
    negative_ttl_ms: int = 0
    serve_invalidated_ms: int = 0
    settle_ms: int = 0
    read_lag_us: int = 0
    hard_timeout_ms: int = 0
    max_load_ms: int = MAX_LOAD_MS
    grace_ms: int = field(init=False)
    """How much longer than fresh an entry is kept."""

    def __post_init__(self) -> None:
        grace_ms = max(self.stale_ms, self.stale_if_error_ms, self.serve_invalidated_ms)
        object.__setattr__(self, "grace_ms", grace_ms)  # frozen: worked out once, asked for at each read

    @classmethod
    def of(
        cls,
        what: str,
        ttl: Duration,
        stale: Duration | None = None,
        stale_if_error: Duration | None = None,
        more: Policy | None = None,
    ) -> Self:
        """Return the policy these options describe. Raises: ConfigurationError naming the view and the option."""
        more = more or Policy()

        def ms(duration: Duration | None, option: str, otherwise: int = 0) -> int:
            return otherwise if duration is None else milliseconds(duration, f"{what}: {option}")

        result = cls(
            ttl_ms=milliseconds(ttl, f"{what}: ttl"),
            stale_ms=ms(stale, "stale"),
            stale_if_error_ms=ms(stale_if_error, "stale_if_error"),
            negative_ttl_ms=ms(more.negative_ttl, "negative_ttl"),
            serve_invalidated_ms=ms(more.serve_invalidated, "serve_invalidated"),
            settle_ms=ms(more.settle, "settle"),
            read_lag_us=ms(more.read_lag, "read_lag") * 1000,
            hard_timeout_ms=ms(more.hard_timeout, "hard_timeout"),
            max_load_ms=ms(more.max_load, "max_load", MAX_LOAD_MS),
        )
        if result.ttl_ms + result.grace_ms > LONGEST_MS:
            raise ConfigurationError(f"{what}: ttl with its stale windows is over {LONGEST_MS // 86_400_000} days")
        return result

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Declaration:
    """What a decorator line says of a view."""

    template: str
    ttl: Duration | Callable[[Any], Duration] | None = None
    tags: Tags = ()
    stale: Duration | None = None
    stale_if_error: Duration | None = None
    identity: str | None = None
    not_in_key: str | Iterable[str] = ()
    critical: bool = False
    policy: Policy = field(default_factory=Policy)

    @property
    def what(self) -> str:
        """The view, as errors name it."""
        return f"view {self.template!r}"

    def check(self, function: object) -> None:
        """Refuse what is of no use in its place. Raises: ConfigurationError naming the view, the option and the fix."""
        template, policy, identity = cast("tuple[object, ...]", (self.template, self.policy, self.identity))
        if not isinstance(template, str):
            raise ConfigurationError(f'{self.what}: a key is a text, such as "orders:{{order_id}}"')
        if isinstance(function, type) or not callable(function):
            raise ConfigurationError(f"{self.what}: it is made of an `async def` function, not of {function!r}")
        if not isinstance(policy, Policy):
            raise ConfigurationError(f'{self.what}: policy: {policy!r} is no Policy; write Policy(settle="1s")')
        if policy.keep is not None and not callable(policy.keep):
            raise ConfigurationError(f"{self.what}: keep: {policy.keep!r} is no function of the value")
        if not isinstance(identity, str | None):
            raise ConfigurationError(f'{self.what}: identity: {identity!r} is no name; write identity="account_id"')

    def names_in(self, option: str, given: Any) -> tuple[str, ...]:
        """Return the names that *option* lists. Raises: ConfigurationError naming view and option."""
        try:
            found = names(given)
        except ConfigurationError as neither:
            raise ConfigurationError(f"{self.what}: {option}: {neither}") from None
        for each in found:
            if not isinstance(each, str):
                raise ConfigurationError(f"{self.what}: {option}: {each!r} is not a name; write it as text")
        return found

    def predicts(self, identity: str | None, *, is_method: bool) -> bool:
        """Return whether calls may be loaded ahead. Raises: ConfigurationError where that cannot work."""
        if not self.policy.predict:
            return False
        if is_method:
            raise ConfigurationError(f"{self.what}: predict: nobody has a method's object later; make it a function")
        if identity is None:
            raise ConfigurationError(
                f"{self.what}: predict needs to know whose calls they are: have {{user_id}} in the key, or name the "
                'parameter that says it: identity="account_id"'
            )
        if self.not_in_key:
            raise ConfigurationError(
                f"{self.what}: predict: a load made later has no {', '.join(names(self.not_in_key))}; let the function "
                "get that itself, and leave not_in_key out"
            )
        return True

    def policy_of(self, default_ttl: Duration) -> ViewPolicy:
        """Return everything about time. Raises: ConfigurationError naming the option."""
        ttl = default_ttl if self.ttl is None or callable(self.ttl) else self.ttl
        return ViewPolicy.of(self.what, ttl, self.stale, self.stale_if_error, self.policy)


def draw() -> float:
    """Return a random number in (0, 1]."""
    return 1.0 - random.random()  # noqa: S311 - spreads load, guards nothing
