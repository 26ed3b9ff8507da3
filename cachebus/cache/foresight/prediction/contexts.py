"""Contexts: the situations in which a read is expected. Pure. They name templates of views, never arguments.

After a read: *after `cart:{user_id}` the same user reads the latest of their calls of `price:{user_id}:{product_id}`,
which they last read within a day*. After an invalidation: *once the user's own data has changed, they read it again*.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import NamedTuple, Self

RANKS = 3
"""Calls of one view, the latest first, that are expected of one identity; such as three symbols of twenty."""
AGES = ("1h", "1d", "7d", "more")
_AGES_S = (3_600.0, 86_400.0, 7 * 86_400.0)
IDLES = ("1m", "5m", "30m", "2h", "1d", "more")
_IDLES_S = (60.0, 300.0, 1_800.0, 7_200.0, 86_400.0)
INVALIDATED = "!"
"""In the place of the view that was read: something was invalidated."""
WRITERS = ("foreign", "own")
"""Whose data changed: everybody's (a scope that names no identity), or the identity's own."""
ANY = ""
"""The age of the context that counts all of them; asked where its parts have seen too little."""

AFTER_READ = RANKS * (len(AGES) + 1)
"""Contexts of one pair of views."""
AFTER_INVALIDATION = len(WRITERS) * len(IDLES)
"""Contexts of one view."""


class Context(NamedTuple):
    """One situation."""

    after: str
    """The view that was read, or `INVALIDATED`."""
    then: str
    """The view whose call is expected."""
    which: str
    """The rank of the call among the identity's calls of that view, "0" the latest; or one of `WRITERS`."""
    when: str
    """How long ago the identity last read that call: less than this."""

    @property
    def name(self) -> str:
        """The context as text: what it is counted under."""
        return "|".join(self)

    @classmethod
    def named(cls, name: str) -> Self | None:
        """Return the context of a name, None for what is none."""
        parts = name.rsplit("|", 2)
        if len(parts) != 3 or "|" not in parts[0]:
            return None
        if parts[0].startswith(INVALIDATED + "|"):
            return cls(INVALIDATED, parts[0][2:], parts[1], parts[2])
        after, _, then = parts[0].partition("|")
        return cls(after, then, parts[1], parts[2])

    def __str__(self) -> str:
        if self.after == INVALIDATED:
            whose = "the same user's data" if self.which == "own" else "data of many users"
            return f"once {whose} changed, {self.then}{_last_read(self.when)} is read again"
        rank = {"1": ", the call before the last", "2": ", two calls before the last"}.get(self.which, "")
        return f"after {self.after} the same user reads {self.then}{rank}{_last_read(self.when)}"


def age_of(seconds: float) -> int:
    """Return which of `AGES` a time is."""
    return bisect_right(_AGES_S, seconds)


def idle_of(seconds: float) -> int:
    """Return which of `IDLES` a time is."""
    return bisect_right(_IDLES_S, seconds)


def contexts_after_read(after: str, then: str) -> list[Context]:
    """Return the contexts of a pair of views: for each rank each age, and `ANY` last."""
    return [Context(after, then, str(rank), age) for rank in range(RANKS) for age in (*AGES, ANY)]


def contexts_after_invalidation(then: str) -> list[Context]:
    """Return the contexts of a view: for each of `WRITERS` each of `IDLES`."""
    return [Context(INVALIDATED, then, writer, idle) for writer in WRITERS for idle in IDLES]


def _last_read(when: str) -> str:
    if when == ANY:
        return ""
    return " (last read long ago)" if when == "more" else f" (last read within {when})"
