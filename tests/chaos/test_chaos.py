"""The tool that attacks what is promised: each harness finds what it looks for, and says so."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from cachebus.sessions.store import SessionStore
from tests.chaos.__main__ import Result, attack
from tests.chaos.harness import Attack, Harness
from tests.chaos.rounds import HARNESSES
from tests.chaos.rounds.primitives import patiently, staged
from tests.support import process_faults, topologies
from tests.support.lacking import lacking
from tests.support.worker_program import ROOT


@pytest.mark.parametrize("harness", HARNESSES, ids=lambda harness: harness.name)
async def test_a_harness_can_fail(harness: Harness) -> None:
    """With the part taken out that it tests, it finds something."""
    result = await attack(harness, 1, 3, broken=True)
    assert result.as_it_should_be, result


@pytest.mark.parametrize("topology", ["sentinel", "cluster"])
async def test_a_failover_loses_no_session_that_was_ended(topology: str) -> None:
    """A primary dies and its replica takes over, while sessions come and go: what had returned holds."""
    attacked = Attack(random.Random(2), topology=topology)  # noqa: S311 - moments
    async with staged(attacked) as stage, stage.deployment.client() as client:
        store = SessionStore(client)
        kept, ended = await store.create(1), await store.create(2)
        await store.invalidate_user(2)
        await stage.fault("die")
        served = [await patiently(store.get, session_id) is not None for session_id in (kept, ended)]
        assert served == [True, False]
    assert stage.findings.faults == {"failover": 1}


async def test_what_the_machine_lacks_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without libfaketime there is no skew, without a server no round; neither is passed over in silence."""
    monkeypatch.setattr(process_faults, "libfaketime", lambda: None)
    monkeypatch.setattr(topologies.shutil, "which", lambda _: None)
    locks = next(harness for harness in HARNESSES if harness.name == "locks")
    result = await attack(locks, 0, 1, broken=True)
    assert [missing for missing in result.lacking if "faketime" in missing]
    assert "clocks jumped" not in result.faults
    result = await attack(locks, 0, 1, topology="redis7")
    assert (result.rounds, result.lacking) == (0, ["no redis-server on this machine: make programs"])


def test_a_skewed_process_has_another_time_and_the_same_monotonic_clock(tmp_path: Path) -> None:
    """Its wall clock is wrong, and is wrong in another way when it has jumped; what measures durations is not."""
    if process_faults.libfaketime() is None:
        lacking("libfaketime: make programs")
    clocks = process_faults.SkewedClocks(tmp_path, random.Random(1))  # noqa: S311 - a wrong time
    command = [sys.executable, "-c", "import time; print(time.time(), time.monotonic())"]
    environment = os.environ | clocks.environment()

    def wrong_by() -> tuple[float, float]:
        said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
        wall, monotonic = map(float, said.split())
        return wall - time.time(), monotonic - time.monotonic()

    first, same = wrong_by()
    assert clocks.jump() == 1
    second, _ = wrong_by()
    assert min(abs(first), abs(second), abs(first - second)) > 60
    assert abs(same) < 30


def test_the_tool_keeps_and_prints_what_it_found(tmp_path: Path) -> None:
    """A table for people, JSON for programs, exit code 0 where nothing was wrong and 1 where something was."""
    kept = tmp_path / "results.json"
    command = [sys.executable, "-m", "tests.chaos", "--minutes", "0", "--only", "resume", "--json", str(kept)]
    sound = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert sound.returncode == 0, sound.stderr
    (result,) = msgspec.json.decode(kept.read_bytes(), type=list[Result])
    assert (result.name, result.wrong, result.counts["schedules"] > 50) == ("resume", [], True)
    assert f"| resume | one | 1 | {result.seconds:.0f} | schedules {result.counts['schedules']:,}," in sound.stdout
    result.wrong.append("schedule 1: a silent hole")
    assert not result.as_it_should_be
    result.without = "the feed"
    assert result.as_it_should_be
