"""When a load ahead of the read is worth it: a counted chance, its price, a budget of waste, a record. Pure.

The chance is that of *having to load*: the outcome counts reads that would have waited, before the value expires and
before it is invalidated. A cell forgets: the last 300 outcomes are nine tenths of what it says a while later.
Source: docs/decisions/0013, which compares it with online logistic regression.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from cachebus.cache.foresight.prediction.contexts import Context

MEMORY = 300
"""Outcomes remembered: patterns change. A table that never forgot was right 23 % of the time after a change."""
KEPT = 1 - 1 / MEMORY
LEAST = 30
"""Outcomes before a context says anything."""
UNKNOWN = -1.0
PRIOR, PRIOR_WEIGHT = 0.5, 2.0
LOWEST = 0.4
"""No chance below this is acted upon, however cheap the database is said to be."""
HIT_MS = 1.0
"""What a read costs that finds its value: it is not saved."""
BUDGET_CAP = 1_000.0
"""Wasted loads that a quiet time may save up for."""
AMPLE = 50.0
"""With fewer tokens the least chance rises, so that the last ones are not spent on whatever comes first."""
SUREST = 0.9
"""What the least chance rises to."""
AT_ONCE = 2
"""Loads ahead under way in one process."""
PER_SECOND = 50.0
MOST_ORDERED = 64
RECORD = 200
"""Live loads of a view after which its record counts."""
SUSPENDED_S = 3600.0


class Totals(NamedTuple):
    """What one context has counted."""

    outcomes: int = 0
    reads: int = 0
    """Outcomes that came true."""
    loads: int = 0
    used: int = 0
    saved_ms: int = 0
    spent_ms: int = 0

    def plus(self, other: Totals) -> Totals:
        """Return the sums."""
        return Totals(*(mine + its for mine, its in zip(self, other, strict=True)))

    def minus(self, other: Totals) -> Totals:
        """Return the differences."""
        return Totals(*(mine - its for mine, its in zip(self, other, strict=True)))

    @classmethod
    def parsed(cls, text: bytes) -> Totals | None:
        """Return what a field in Redis says, None where it is damaged."""
        try:
            return cls(*map(int, text.split()))
        except (TypeError, ValueError):
            return None


class Cell:
    """How often what a context expects has come true, the newest outcomes counting most."""

    __slots__ = ("chance", "context", "loads", "n", "outcomes", "reads", "saved_ms", "spent_ms", "u", "used")

    def __init__(self, context: Context) -> None:
        self.context = context
        self.n = 0.0
        """Outcomes, older ones counting less; approaches `MEMORY`."""
        self.u = 0.0
        """Those of them that came true."""
        self.chance = UNKNOWN
        """How likely it is, 0 to 1; `UNKNOWN` before it has seen enough to say anything."""
        self.outcomes = self.reads = self.loads = self.used = 0
        """Counted in this process: outcomes, those that came true, loads made ahead, and those that were used."""
        self.saved_ms = self.spent_ms = 0.0

    def learn(self, outcome: bool) -> None:
        """Count one outcome of this process."""
        self.n = self.n * KEPT + 1
        self.u = self.u * KEPT + outcome
        self.outcomes += 1
        self.reads += outcome
        self._judge()

    def learn_many(self, outcomes: int, reads: int) -> None:
        """Count outcomes of other processes, mixed as they may have been."""
        kept = KEPT**outcomes
        self.n = self.n * kept + (1 - kept) * MEMORY
        self.u = self.u * kept + (1 - kept) * MEMORY * reads / outcomes
        self._judge()

    def forget(self) -> None:
        """Begin again in shadow."""
        self.n = self.u = 0.0
        self._judge()

    @property
    def totals(self) -> Totals:
        """Everything this process has counted."""
        return Totals(self.outcomes, self.reads, self.loads, self.used, round(self.saved_ms), round(self.spent_ms))

    def _judge(self) -> None:
        self.chance = chance_of(self.n, self.u)


def chance_of(outcomes: float, reads: float) -> float:
    """Return how likely a read is, 0 to 1, of so many outcomes; `UNKNOWN` where they are too few."""
    return (reads + PRIOR * PRIOR_WEIGHT) / (outcomes + PRIOR_WEIGHT) if outcomes >= LEAST else UNKNOWN


def threshold(load_ms: float | None, price: float) -> float:
    """Return the least chance at which a load ahead pays: P · saved ≥ (1 - P) · load · price.

    *load_ms*: how long a load takes, None where that is not known yet. *price*: what a millisecond of the database is
    worth in milliseconds of a user's wait.
    """
    if load_ms is None:
        return max(LOWEST, price / (1 + price))
    saved_ms, cost_ms = max(0.0, load_ms - HIT_MS), load_ms * price
    return max(LOWEST, cost_ms / (saved_ms + cost_ms)) if saved_ms else 2.0


class Budget:
    """What may be wasted: a share of the loads that somebody waited for. Used loads cost nothing."""

    def __init__(self, share: float) -> None:
        self._share = share
        self.tokens = 0.0

    def earn(self, loads: int = 1) -> None:
        """Take note of loads that somebody waited for, of any view."""
        self.tokens = min(BUDGET_CAP, self.tokens + self._share * loads)

    def spend(self, chance: float, least: float) -> bool:
        """Take what one load may waste; False where there is none left, or what is left is for surer ones."""
        if self.tokens < 1 or chance < least + (SUREST - least) * (1 - self.tokens / AMPLE):
            return False
        self.tokens -= 1
        return True

    def give_back(self) -> None:
        """A load was used, or not made after all."""
        self.tokens = min(BUDGET_CAP, self.tokens + 1)


class TrackRecord:
    """The last live loads of one view. Used less than half as often as they had to be, they stop for an hour."""

    def __init__(self) -> None:
        self._last: deque[bool] = deque(maxlen=RECORD)
        self._used = 0
        self.suspended_until = 0.0

    def ended(self, now: float, least: float, *, used: bool) -> float | None:
        """Take note of one; returns the share that was used where that suspends the view, else None."""
        if len(self._last) == RECORD:
            self._used -= self._last[0]
        self._last.append(used)
        self._used += used
        share = self._used / RECORD
        if len(self._last) < RECORD or share >= least / 2:
            return None
        self._last.clear()
        self._used = 0
        self.suspended_until = now + SUSPENDED_S
        return share
