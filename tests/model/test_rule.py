"""The freshness rule holds under every schedule, and every part of it is needed."""

from __future__ import annotations

import pytest

from tests.model.world import PARTS, schedule

SCHEDULES, STEPS = 300, 1200


def test_no_schedule_of_three_processes_shows_a_stale_value() -> None:
    """Random reads, loads, writes, trims, evictions, restarts and failovers: not one violation."""
    violated = {seed: found[0] for seed in range(SCHEDULES) if (found := schedule(seed, STEPS))}
    assert violated == {}


@pytest.mark.parametrize("part", PARTS)
def test_without_any_one_part_a_stale_value_is_shown(part: str) -> None:
    """The model is able to fail: leave a part of the rule out, and some schedule shows it."""
    assert any(schedule(seed, STEPS, frozenset({part})) for seed in range(SCHEDULES))
