"""Other opinions of how likely a read is, in the place of the table's, on the same traffic with the same budget.

Logistic regression that learns online, by river and by scikit-learn; a table that never forgets; one that knows pairs
of views alone; one of each user's own. What is not installed is left out.
"""

from __future__ import annotations

import math
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Protocol

from cachebus.cache.foresight.prediction.decision import LEAST
from cachebus.cache.foresight.prediction.expectation import Expectation, ForecastView, Said
from cachebus.cache.foresight.prediction.forecaster import Forecaster
from cachebus.cache.foresight.prediction.outcomes import Outcomes
from cachebus.cache.foresight.prediction.repertoire import CallMade, Person

WASTE, PRICE = 0.1, 1.0
HASHED = 4096
"""Columns of the hashed features of scikit-learn's model."""


@dataclass(frozen=True)
class Seen:
    """What is known of a read that is expected: thirteen features."""

    pair: str
    rank: int
    age_s: float
    at: float
    calls: int
    user: object
    own_rate: float
    own_seen: int

    def features(self) -> dict[str, float]:
        """Return them by name: words are 1 where they hold."""
        hour = self.at % 86_400 / 86_400 * 2 * math.pi
        return {
            "bias": 1.0,
            self.pair: 1.0,
            f"{self.pair} {self.rank}": 1.0,
            f"{self.pair} {min(3, int(math.log10(max(1.0, self.age_s / 360))))}": 1.0,
            f"rank {self.rank}": 1.0,
            "age": math.log1p(self.age_s) / 15,
            "hour sin": math.sin(hour),
            "hour cos": math.cos(hour),
            "weekend": float(self.at // 86_400 % 7 >= 5),
            "calls": self.calls / 16,
            "own rate": self.own_rate - 0.5,
            f"{self.pair} own rate": self.own_rate - 0.5,
            "own seen": min(self.own_seen, 20) / 20,
        }


class Opinion(Protocol):
    """Says how likely a read is, and is told what came of it."""

    def chance(self, seen: Seen) -> float: ...
    def learn(self, seen: Seen, came_true: bool) -> None: ...


class River:
    """river's logistic regression."""

    def __init__(self) -> None:
        from river import linear_model, optim  # noqa: PLC0415 - may not be installed

        self._model = linear_model.LogisticRegression(optimizer=optim.AdaGrad(0.1))

    def chance(self, seen: Seen) -> float:
        """Return its prediction."""
        return float(self._model.predict_proba_one(seen.features()).get(True, 0.5))

    def learn(self, seen: Seen, came_true: bool) -> None:
        """Train with one."""
        self._model.learn_one(seen.features(), came_true)


class ScikitLearn:
    """scikit-learn's, by stochastic gradient descent, on hashed features."""

    def __init__(self) -> None:
        from sklearn.feature_extraction import FeatureHasher  # noqa: PLC0415 - may not be installed
        from sklearn.linear_model import SGDClassifier  # noqa: PLC0415

        self._hasher = FeatureHasher(HASHED)
        self._model = SGDClassifier(loss="log_loss", alpha=1e-6, learning_rate="constant", eta0=0.05)
        self._is_trained = False

    def chance(self, seen: Seen) -> float:
        """Return its prediction."""
        if not self._is_trained:
            return 0.5
        return float(self._model.predict_proba(self._hasher.transform([seen.features()]))[0, 1])

    def learn(self, seen: Seen, came_true: bool) -> None:
        """Train with one."""
        self._model.partial_fit(self._hasher.transform([seen.features()]), [came_true], classes=[False, True])
        self._is_trained = True


class Tally:
    """A table by whatever is made of what is seen. *kept*: how much of a count the next outcome leaves."""

    def __init__(self, key: Callable[[Seen], object], kept: float) -> None:
        self._key, self._kept = key, kept
        self._counts: dict[object, list[float]] = defaultdict(lambda: [0.0, 0.0])

    def chance(self, seen: Seen) -> float:
        """Return what was counted, with half an outcome of two as prior."""
        n, u = self._counts[self._key(seen)]
        return (u + 1) / (n + 2)

    def learn(self, seen: Seen, came_true: bool) -> None:
        """Count one."""
        counts = self._counts[self._key(seen)]
        counts[0] = counts[0] * self._kept + 1
        counts[1] = counts[1] * self._kept + came_true


def by_age(seen: Seen) -> object:
    """Return what the library's own contexts are made of."""
    return seen.pair, seen.rank, sum(seen.age_s >= bound for bound in (3_600, 86_400, 604_800))


OPINIONS: dict[str, Callable[[], Opinion] | None] = {
    "the table (ours)": None,
    "a table that never forgets": lambda: Tally(by_age, 1.0),
    "pairs of views alone": lambda: Tally(lambda seen: seen.pair, 1 - 1 / 300),
    "each user's own pairs": lambda: Tally(lambda seen: (seen.pair, seen.user), 1 - 1 / 30),
    "river, logistic regression": River,
    "scikit-learn, SGD log loss": ScikitLearn,
}
NEEDS = {River: "river", ScikitLearn: "sklearn"}


def opinions() -> Iterator[tuple[str, Callable[[], Opinion] | None]]:
    """Yield those that can be had here."""
    for name, make in OPINIONS.items():
        package = NEEDS.get(make)  # type: ignore[arg-type] # classes among functions
        if package is None or find_spec(package) is not None:
            yield name, make


class _Featured(Said):
    """What was said, and of what."""

    seen: Seen


class _Learning(Outcomes):
    """Tells the opinion what came of it."""

    opinion: Opinion
    own: dict[tuple[object, str], list[int]]

    def _learn(self, expectation: Expectation, said: Said, *, came_true: bool) -> None:
        super()._learn(expectation, said, came_true=came_true)
        if isinstance(said, _Featured):
            self.opinion.learn(said.seen, came_true)
            counts = self.own.setdefault((said.seen.user, said.seen.pair), [0, 0])
            counts[0] += 1
            counts[1] += came_true


class OpinionForecaster(Forecaster):
    """The library's forecaster, but for who says how likely a read is; as silent as the table before 30 outcomes."""

    def __init__(self, opinion: Opinion) -> None:
        super().__init__(live=True, waste=WASTE, price=PRICE)
        self._opinion = opinion
        self.outcomes = learning = _Learning(self.budget, lambda _: True)
        learning.opinion, learning.own = opinion, {}
        self._own = learning.own
        self.asked_s: list[float] = []

    def _expect(
        self, view: ForecastView, person: Person[Expectation], call: CallMade, said: Said
    ) -> Expectation | None:
        context, habit = said.cell.context, person.calls[call]
        pair = f"{context.after} {context.then}"
        seen_own, read_own = self._own.get((id(person), pair), (0, 0))
        rank = int(context.which) if context.which.isdigit() else 9 + (context.which == "own")
        seen = Seen(
            pair,
            rank,
            said.at - habit.at,
            said.at,
            len(person.calls),
            id(person),
            (read_own + 1) / (seen_own + 2),
            seen_own,
        )
        began = time.perf_counter()
        enough = said.cell.n >= LEAST or (said.broad is not None and said.broad.n >= LEAST)
        chance = self._opinion.chance(seen) if enough else -1.0
        self.asked_s.append(time.perf_counter() - began)
        featured = _Featured(said.at, said.cell, said.broad, chance, chance >= view.least)
        featured.seen = seen
        return super()._expect(view, person, call, featured)

    @property
    def asking_us(self) -> float:
        """What an answer takes, median."""
        return statistics.median(self.asked_s) * 1e6 if self.asked_s else 0.0


def forecaster_of(make: Callable[[], Opinion] | None) -> Any:
    """Return a forecaster of that opinion."""
    return Forecaster(live=True, waste=WASTE, price=PRICE) if make is None else OpinionForecaster(make())
