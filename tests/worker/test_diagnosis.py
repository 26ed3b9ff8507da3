"""What `doctor` concludes: a sound server gives no fix, each fault its own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from worker.diagnosis import Facts, Grade, judge, judge_installation

SOUND = Facts(
    name="redis",
    host="10.0.0.3",
    info={
        "redis_version": "7.2.4",
        "server_name": "valkey",
        "valkey_version": "9.1.0",
        "role": "master",
        "maxmemory": str(2**30),
        "used_memory": str(2**28),
        "maxmemory_policy": "noeviction",
        "aof_enabled": "1",
        "connected_clients": "8",
    },
    keeps=True,
    caches=True,
    round_trip_ms=0.3,
    max_clients=100,
)


def test_a_sound_server_has_nothing_to_mend() -> None:
    """Every finding about a good server is ok."""
    findings = list(judge(SOUND))
    assert {finding.grade for finding in findings} == {Grade.OK}
    assert "valkey 9.1.0 at 10.0.0.3" in findings[0].what


@pytest.mark.parametrize(
    ("info", "changes", "grade", "what"),
    [
        ({"maxmemory_policy": "allkeys-lru"}, {}, Grade.BAD, "may evict events, locks and sessions"),
        ({"maxmemory_policy": "allkeys-lru", "maxmemory": "0"}, {"caches": False}, Grade.WARNING, "may evict"),
        ({}, {"keeps": False}, Grade.WARNING, "refuses writes when it is full"),
        ({"maxmemory": "0"}, {}, Grade.WARNING, "no maxmemory"),
        ({"used_memory": str(2**30 - 1)}, {}, Grade.WARNING, "100% of 1,024 MB used"),
        ({"aof_enabled": "0"}, {}, Grade.WARNING, "no append-only file"),
        ({"role": "slave"}, {}, Grade.BAD, "is a replica"),
        ({"connected_clients": "98"}, {}, Grade.BAD, "98 of 100 connections"),
        ({"connected_clients": "85"}, {}, Grade.WARNING, "85 of 100 connections"),
        ({}, {"host": "redis.example.com"}, Grade.WARNING, "not encrypted"),
        ({}, {"round_trip_ms": 40.0}, Grade.WARNING, "40.0 ms a round trip"),
        ({}, {"skew_s": -3600.0}, Grade.WARNING, "-3600.0 s"),
        ({}, {"known_commands": False}, Grade.BAD, "too old"),
        ({}, {"refused": ("EVAL",)}, Grade.BAD, "may not run EVAL"),
    ],
)
def test_each_fault_is_found_with_its_fix(
    info: dict[str, str], changes: dict[str, Any], grade: Grade, what: str
) -> None:
    """One thing wrong is one finding that says what to do, and nothing else turns bad."""
    findings = [finding for finding in judge(replace(SOUND, info={**SOUND.info, **info}, **changes)) if finding.fix]
    assert [(finding.grade, what in finding.what) for finding in findings] == [(grade, True)]


def test_a_server_that_says_little_is_not_accused() -> None:
    """A managed server may hide INFO and CONFIG: what is not known is not found."""
    findings = list(judge(replace(SOUND, info={})))
    assert not [finding for finding in findings if finding.grade is Grade.BAD or "None" in finding.what]


@pytest.mark.parametrize(("version", "grade"), [("3.5.0", Grade.OK), ("3.4.1", Grade.BAD), (None, Grade.BAD)])
def test_hiredis_is_there_and_does_not_leak(version: str | None, grade: Grade) -> None:
    """A missing or leaking hiredis is bad."""
    assert next(judge_installation(version, uvloop=True)).grade is grade
