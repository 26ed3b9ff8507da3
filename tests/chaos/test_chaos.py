"""The tool that attacks what is promised: each harness finds what it looks for, and says so."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from tests.chaos.__main__ import Result, attack
from tests.chaos.harness import Harness
from tests.chaos.rounds import HARNESSES
from tests.support.worker_program import ROOT


@pytest.mark.parametrize("harness", HARNESSES, ids=lambda harness: harness.name)
async def test_a_harness_can_fail(harness: Harness) -> None:
    """With the part taken out that it tests, it finds something."""
    result = await attack(harness, 1, 3, broken=True)
    assert result.as_it_should_be, result


def test_the_tool_keeps_and_prints_what_it_found(tmp_path: Path) -> None:
    """A table for people, JSON for programs, exit code 0 where nothing was wrong and 1 where something was."""
    kept = tmp_path / "results.json"
    command = [sys.executable, "-m", "tests.chaos", "--minutes", "0", "--only", "resume", "--json", str(kept)]
    sound = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert sound.returncode == 0, sound.stderr
    (result,) = msgspec.json.decode(kept.read_bytes(), type=list[Result])
    assert (result.name, result.wrong, result.counts["schedules"] > 50) == ("resume", [], True)
    assert f"| resume | 1 | {result.seconds:.0f} | schedules {result.counts['schedules']:,}," in sound.stdout
    result.wrong.append("schedule 1: a silent hole")
    assert not result.as_it_should_be
    result.without = "the feed"
    assert result.as_it_should_be
