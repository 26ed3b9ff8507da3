"""The freshness rule holds under every schedule, and each part of it is needed. Long form: `python -m tests.model`."""

from __future__ import annotations

import pytest

from tests.model.beginnings import BEGINNINGS
from tests.model.exhaust import walk
from tests.model.world import PARTS, schedule

SCHEDULES, STEPS = 60, 1500
DEPTH, DEEPER = 3, 5


def test_no_schedule_of_three_processes_shows_a_stale_value() -> None:
    """Random reads, loads, plain values, writes, trims, evictions, restarts and failovers: not one violation."""
    violated = {seed: found[0] for seed in range(SCHEDULES) if (found := schedule(seed, STEPS))}
    assert violated == {}


@pytest.mark.parametrize("beginning", BEGINNINGS)
def test_no_interleaving_of_two_processes_shows_a_stale_value(beginning: str) -> None:
    """All of them, to a depth, from everything that may be under way."""
    walked = walk(BEGINNINGS[beginning], DEPTH)
    assert (walked.violation, walked.depth) == (None, DEPTH)


@pytest.mark.parametrize("part", PARTS)
def test_without_any_one_part_exhaustion_finds_a_stale_value(part: str) -> None:
    """The model is able to fail: leave a part of the rule out, and some interleaving shows it."""
    (beginning,) = [beginning for beginning in BEGINNINGS.values() if part in beginning.finds]
    assert walk(beginning, DEEPER, {part}).violation is not None
