"""Real workers, real signals: the small version of `python -m tests.support.schedules_soak`."""

from __future__ import annotations

from tests.support.schedules_soak import Findings, soak
from tests.support.topologies import deployed


async def test_killed_and_frozen_workers_start_nothing_twice() -> None:
    """Three processes, the holder killed or stopped three times: a second start only after a death, never a third."""
    async with deployed("one") as deployment:
        findings = await soak(deployment, kills=3, lease_ms=1_000)
    assert findings.wrong == []
    assert findings.kills + findings.freezes == 3
    assert findings.started > 0


def test_the_soak_can_fail() -> None:
    """A third start is wrong, a second one of a job that must not be repeated, one without a death, one fence twice."""
    assert Findings(kills=1, starts={"again": {1: [5, 6]}}).wrong == []
    assert len(Findings(kills=9, starts={"again": {1: [5, 6, 7]}}).wrong) == 1
    assert len(Findings(kills=9, starts={"never": {1: [5, 6]}}).wrong) == 1
    assert len(Findings(kills=0, starts={"again": {1: [5, 6]}}).wrong) == 1
    assert len(Findings(kills=9, starts={"again": {1: [5, 5]}}).wrong) == 1
    assert len(Findings(kills=9, starts={"again": {1: [6, 5]}}).wrong) == 1
    assert Findings(freezes=1, starts={"again": {1: [6, 5]}}).wrong == []
