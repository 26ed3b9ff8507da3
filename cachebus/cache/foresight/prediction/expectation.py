"""One call of one identity that is expected to be read, and what was or was not done about it. Pure."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from cachebus.cache.foresight.prediction.decision import Cell, TrackRecord, threshold
from cachebus.cache.foresight.prediction.repertoire import CallMade, Person
from cachebus.cache.stats import ViewStats

LONGEST_S = 3600.0
"""A read later than this after a prediction is no merit of it, however long the value lives."""
OF_TTL = 0.85
"""Of a TTL, in which the read must come: whatever was loaded in this time is then still there (a tenth is jitter)."""
OF_LOAD = 0.1
"""Of a new load time, the share in the average."""


class ForecastView:
    """A view, as far as forecasts know it."""

    def __init__(self, number: int, name: str, ttl_s: float, stats: ViewStats, *, predicts: bool, price: float) -> None:
        self._price = price
        self.number = number
        self.name = name
        self.horizon_s = min(OF_TTL * ttl_s, LONGEST_S)
        self.stats = stats
        self.predicts = predicts
        """Whether its calls may be loaded ahead; from others one only predicts."""
        self.load_ms: float | None = None
        """What its loads take, on average."""
        self.least = threshold(None, price)
        """The chance at which a load ahead pays."""
        self.record = TrackRecord()
        self.after: dict[int, list[Cell]] = {}
        """After a read of this view, by the number of the view that is expected: the cells of that pair."""
        self.changed: list[Cell] = []
        """After an invalidation of this view."""
        self.is_live = False
        """Whether some context that begins with a read of it may load."""
        self.is_live_when_changed = False
        self.may_be_ahead = False
        """Whether some context may load calls of it."""

    def took(self, load_ms: float) -> None:
        """Take note of how long a load took."""
        self.load_ms = load_ms if self.load_ms is None else self.load_ms + OF_LOAD * (load_ms - self.load_ms)
        self.least = threshold(self.load_ms, self._price)


class Ahead(Enum):
    """How far the load ahead has come."""

    NONE = "none was ordered, or it was not needed"
    ORDERED = "ordered, not begun"
    LOADING = "under way"
    LOADED = "there, and not read yet"


class Said(NamedTuple):
    """What one context said."""

    at: float
    cell: Cell
    broad: Cell | None
    """The context of all ages, which learns the same."""
    chance: float
    """`UNKNOWN` where neither had seen enough."""
    would: bool
    """Whether that was enough for a load."""


class Expectation:
    """What was said of one call, until its outcome is known."""

    __slots__ = ("ahead", "because", "begun_at", "call", "load_ms", "mark", "over", "person", "read_at", "said", "view")

    def __init__(self, view: ForecastView, person: Person[Expectation], call: CallMade, mark: int) -> None:
        self.view = view
        self.person = person
        self.call = call
        self.mark = mark
        """The clock of invalidations when it was made."""
        self.said: list[Said] = []
        self.because: Said | None = None
        """What ordered the load."""
        self.ahead = Ahead.NONE
        self.begun_at = self.load_ms = 0.0
        self.read_at: float | None = None
        """When the read came that found the load under way."""
        self.over = False
        """Whether the outcome is known."""

    def deadline(self) -> float:
        """Return when the oldest of what was said has not come true."""
        return self.said[0].at + self.view.horizon_s

    def take_late(self, now: float) -> Expectation | None:
        """Return what has not come true by *now* as an expectation of its own; None where that is all of it."""
        late = [said for said in self.said if said.at + self.view.horizon_s <= now]
        if len(late) == len(self.said) or self.because in late:
            return None
        self.said = self.said[len(late) :]
        other = Expectation(self.view, self.person, self.call, self.mark)
        other.said = late
        return other

    def was_said_by(self, cell: Cell) -> bool:
        """Return whether this context has its outcome still to come."""
        for said in self.said:  # noqa: SIM110 - a generator costs more than all the rest
            if said.cell is cell:
                return True
        return False
