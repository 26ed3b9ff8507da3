"""What became of expectations, and of the loads made ahead: what the contexts learn, and what is counted. Pure."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

from cachebus.cache.foresight.prediction.decision import HIT_MS, Budget
from cachebus.cache.foresight.prediction.expectation import Ahead, Expectation, ForecastView, Said

DECILES = 10


class FoundElsewhere(Enum):
    """What became, in any process, of a call that was expected and not read in this one."""

    READ = "somebody had to load it, or found what was loaded ahead"
    READY = "it was there all the time: nobody would have had to wait"
    MISSED = "nobody read it"


class Outcomes:
    """The outcomes of one process.

    A read that had to load, or found our load, makes what was said true. One that finds another value had no need of
    us, and says nothing. An invalidation, or the end of the time in which the value would have lived, makes it false.
    """

    def __init__(self, budget: Budget, is_valid: Callable[[Expectation], bool]) -> None:
        """*is_valid*: whether nothing was invalidated since, of what the call depends on."""
        self.budget = budget
        self.calibration = [[0, 0.0, 0] for _ in range(DECILES)]
        """By the tenth that a chance was in: outcomes, chances altogether, outcomes that came true."""
        self.suspended: list[tuple[ForecastView, float]] = []
        """Views whose live loads have just been suspended, and the share that was used; for who reports it."""
        self.used: Callable[[Expectation], None] = lambda _: None
        """Called with each load ahead that a read has found."""
        self._is_valid = is_valid

    # -- of what was expected ---------------------------------------------------------------------------------------

    def read(self, expectation: Expectation, now: float, began: float, *, loaded: bool) -> None:
        """The call was read, from *began* to *now*; *loaded*: this read had to load."""
        if expectation.ahead is Ahead.ORDERED:
            self.refused(expectation)
        ahead = expectation.ahead
        if not (loaded or ahead in (Ahead.LOADING, Ahead.LOADED)):
            expectation.over = True
            return
        if not self._is_valid(expectation):
            self.lost(expectation, now)
            return
        expectation.over = True
        for said in expectation.said:
            if said.at < began:
                self._learn(expectation, said, came_true=True)
        if ahead is Ahead.LOADED:
            self._ended(expectation, now, saved_ms=0.0 if loaded else expectation.load_ms - HIT_MS, used=not loaded)
        elif ahead is Ahead.LOADING and not loaded and began >= expectation.begun_at:
            expectation.read_at = began

    def lost(self, expectation: Expectation, now: float) -> None:
        """It was invalidated first, or not read in time."""
        expectation.over = True
        self._lost(expectation, expectation.said, now)

    def left(self, expectation: Expectation, now: float) -> None:
        """Nobody will know: its identity has made room for another, or it says nothing. A load counts as wasted."""
        expectation.over = True
        self._lost(expectation, [], now)

    def settled(self, expectation: Expectation, found: FoundElsewhere, now: float) -> None:
        """Its time is over, and this process has not read it; *found*: what others did."""
        if found is FoundElsewhere.READ and self._is_valid(expectation):
            expectation.over = True
            for said in expectation.said:
                self._learn(expectation, said, came_true=True)
            if expectation.ahead is Ahead.LOADED:
                self._ended(expectation, now, saved_ms=expectation.load_ms - HIT_MS, used=True)
        elif found is FoundElsewhere.READY and expectation.ahead is not Ahead.LOADED:
            self.left(expectation, now)
        else:
            self.lost(expectation, now)

    def _lost(self, expectation: Expectation, said: list[Said], now: float) -> None:
        for each in said:
            self._learn(expectation, each, came_true=False)
        if expectation.over and expectation.ahead is Ahead.LOADED:
            self._ended(expectation, now, saved_ms=0.0, used=False)
        elif expectation.over and expectation.ahead is Ahead.ORDERED:
            self.refused(expectation)

    def _learn(self, expectation: Expectation, said: Said, *, came_true: bool) -> None:
        said.cell.learn(came_true)
        if said.broad is not None:
            said.broad.learn(came_true)
        if said.chance < 0:
            return
        decile = self.calibration[min(int(said.chance * DECILES), DECILES - 1)]
        decile[0] += 1
        decile[1] += said.chance
        decile[2] += came_true
        if said.would and expectation.because is None:
            stats = expectation.view.stats
            stats.shadow_right += came_true
            stats.shadow_wrong += not came_true

    # -- of loads ahead ---------------------------------------------------------------------------------------------

    def begun(self, expectation: Expectation, now: float) -> bool:
        """The load is about to begin; False where it shall not: the outcome is known by now."""
        if expectation.over or expectation.ahead is not Ahead.ORDERED:
            return False
        expectation.ahead, expectation.begun_at = Ahead.LOADING, now
        return True

    def refused(self, expectation: Expectation) -> None:
        """The load is not made."""
        if expectation.ahead in (Ahead.ORDERED, Ahead.LOADING):
            expectation.ahead = Ahead.NONE
            expectation.view.stats.ahead_refused += 1
            self.budget.give_back()

    def failed(self, expectation: Expectation, now: float) -> None:
        """The load has raised: as good as wasted."""
        if expectation.ahead is Ahead.LOADING:
            expectation.view.stats.ahead_loads += 1
            self._ended(expectation, now, saved_ms=0.0, used=False)

    def loaded(self, expectation: Expectation, now: float, *, until: float, loaded: bool) -> None:
        """The load has ended, and the value is there *until*; *loaded* is False where it was there already."""
        if expectation.ahead is not Ahead.LOADING:
            return
        if not loaded:
            expectation.ahead = Ahead.NONE
            self.budget.give_back()
            return
        expectation.ahead, expectation.load_ms = Ahead.LOADED, (now - expectation.begun_at) * 1000
        expectation.view.took(expectation.load_ms)
        expectation.view.stats.ahead_loads += 1
        if expectation.because is not None:
            expectation.because.cell.loads += 1
            expectation.because.cell.spent_ms += expectation.load_ms
        if not expectation.over:
            habit = expectation.person.calls.get(expectation.call)
            if habit is not None:
                habit.until = until
        elif expectation.read_at is None:  # lost while it ran
            self._ended(expectation, now, saved_ms=0.0, used=False)
        else:
            self._ended(expectation, now, saved_ms=(expectation.read_at - expectation.begun_at) * 1000, used=True)

    def _ended(self, expectation: Expectation, now: float, *, saved_ms: float, used: bool) -> None:
        view, because = expectation.view, expectation.because
        expectation.ahead = Ahead.NONE
        if used:
            self.budget.give_back()
            view.stats.ahead_used += 1
            view.stats.ahead_saved_ms += max(0.0, saved_ms)
            self.used(expectation)
        else:
            view.stats.ahead_wasted += 1
        if because is not None:
            because.cell.used += used
            because.cell.saved_ms += max(0.0, saved_ms)
        share = view.record.ended(now, view.least, used=used)
        if share is not None:
            self.suspended.append((view, share))
