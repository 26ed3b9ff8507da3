"""The window that figures are of, as the address of a page says it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

import msgspec

from cachebus.errors import ConfigurationError

NAMES = {"10m": 600, "1h": 3600, "24h": 86_400}
"""Lengths in seconds."""
LATEST_S = 3600
"""So far back there are minutes; beyond there are hours."""


class FigureWindow(msgspec.Struct, frozen=True):
    """From then until then, seconds of the server's clock."""

    from_s: float
    until_s: float
    hourly: bool
    """Whether it is made of hours, and not of minutes."""
    chosen: bool
    """Whether somebody marked it on the time axis."""

    @classmethod
    def of(cls, query: Mapping[str, str], now_s: float, *, usual: str = "1h") -> Self:
        """Read it from a query: `window=1h`, or `from=…&until=…` in seconds. Raises: ConfigurationError."""
        name = query.get("window", usual)
        if name not in NAMES:
            raise ConfigurationError(f"window: choose {', '.join(NAMES)}")
        hourly = NAMES[name] > LATEST_S
        if "from" not in query:
            return cls(now_s - NAMES[name], now_s, hourly, chosen=False)
        try:
            begins, ends = float(query["from"]), float(query.get("until", now_s))
        except ValueError:
            raise ConfigurationError("from, until: seconds since 1970") from None
        if not 0 <= begins < ends < 1e11:
            raise ConfigurationError("from, until: the first must come before the second")
        return cls(begins, ends, hourly or begins < now_s - LATEST_S - 60, chosen=True)

    def holds(self, at: int) -> bool:
        """Whether a bucket that begins then is in it: at least half of it, or the one under way."""
        middle = at + (1800 if self.hourly else 30)
        return self.from_s <= middle and (middle if self.chosen else at) <= self.until_s

    @property
    def minutes(self) -> float:
        """How long it is."""
        return max(1.0, (self.until_s - self.from_s) / 60)
