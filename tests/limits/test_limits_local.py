"""Counters of one process against the models that the scripts answer to: the same strategies, the same numbers."""

from __future__ import annotations

import random
from datetime import timedelta

import pytest

from cachebus.limits.local_counters import LocalCounters
from cachebus.limits.rules import KEPT, Limit
from tests.support.limit_models import MODELS

MINUTE = 60_000_000
SHAPES = [(1, MINUTE), (5, 5 * MINUTE), (64, MINUTE), (7, MINUTE + 13_000)]
LARGE = [(65, MINUTE), (1000, 60 * MINUTE), (977, 7 * MINUTE + 30_000)]
CASES = [
    *[("sliding_window", *shape) for shape in SHAPES + LARGE],
    *[(kind, *shape) for kind in ("token_bucket", "fixed_window") for shape in SHAPES + LARGE],
]


@pytest.mark.parametrize(("strategy", "limit", "window_us"), CASES)
def test_every_answer_is_the_models(strategy: str, limit: int, window_us: int) -> None:
    """Units left, the wait of a refusal and the wait for more are never off by one, at any cost and any pace."""
    draw = random.Random(f"{strategy} {limit} {window_us}")  # noqa: S311 - a seed, not a secret
    rule = Limit(limit, timedelta(microseconds=window_us), strategy)
    model, counters, now = MODELS[rule.kind](limit, window_us), LocalCounters(), 1_800_000_000_000_000
    for _ in range(1500):
        pace = draw.choice([0, 1, window_us // (3 * limit), window_us // limit, window_us // 3, window_us])
        now += draw.randint(0, pace)
        cost = draw.choice([1, 1, 1, draw.randint(1, limit), limit + 1])
        look = counters.look("k", rule, limit, cost, now)
        if look[1] == 0:
            look = counters.take("k", rule, limit, cost, now)
        assert look == model.take(now, cost)


def test_a_changed_window_keeps_what_was_used() -> None:
    """A bucket that is half full is half full of the longer window too; a sliding window still knows its requests."""
    counters = LocalCounters()
    short, long = Limit(4, "1m", "token_bucket"), Limit(4, "1h", "token_bucket")
    counters.take("bucket", short, 4, 2, 0)
    assert counters.look("bucket", long, 4, 1, 0)[0] == 2
    counters.take("log", Limit(4, "1m"), 4, 2, 0)
    assert counters.look("log", Limit(4, "1h"), 4, 1, 2 * MINUTE)[0] == 2
    assert counters.look("log", Limit(4, "1m"), 4, 1, 2 * MINUTE)[0] == 4


def test_counters_are_bounded() -> None:
    """A million addresses fill no memory: the least recently used are forgotten."""
    counters = LocalCounters()
    for number in range(KEPT + 100):
        counters.take(f"k{number}", Limit(5, 60), 5, 1, 0)
    assert len(counters) == KEPT
    assert counters.look("k0", Limit(5, 60), 5, 1, 0)[0] == 5
    assert counters.look(f"k{KEPT + 99}", Limit(5, 60), 5, 1, 0)[0] == 4
