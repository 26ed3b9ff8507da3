"""A browser that comes back gets every message once and in order, or is told that it did not."""

from __future__ import annotations

import pytest

from tests.support.resume_schedules import Schedule

SCHEDULES = 10_000


@pytest.mark.parametrize("part", range(4))
async def test_random_schedules(part: int) -> None:
    """Publish, trim, flush, fail over, restart, reconnect anywhere, in any order: no silent hole, nothing twice."""
    resumed = resets = 0
    for seed in range(part * SCHEDULES // 4, (part + 1) * SCHEDULES // 4):
        schedule = Schedule(seed)
        try:
            await schedule.play()
        except AssertionError as found:
            raise AssertionError(f"seed {seed}") from found
        resumed += sum(browser.resumed for browser in schedule.browsers)
        resets += sum(browser.resets for browser in schedule.browsers)
    # Both happen often, so that neither "always reset" nor "never reset" would pass.
    assert resumed > SCHEDULES / 20
    assert resets > SCHEDULES / 20
