"""What `doctor` concludes: a sound server gives no fix, each fault its own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cachebus.cache.upkeep.reporter import ProcessReport
from cachebus.freshness.era import WHY, Era
from cachebus.monitoring.verdict.diagnosis import Facts, Grade, judge, judge_era, judge_installation, judge_reads

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
    """A managed server may hide INFO and CONFIG: what is not known is said to be unknown, and no figure is invented."""
    findings = list(judge(replace(SOUND, info={})))
    assert {finding.grade for finding in findings} == {Grade.OK}
    assert [finding.what for finding in findings] == [
        "redis: redis of unknown version at 10.0.0.3",
        "redis: INFO is refused: memory, eviction, persistence and connections unknown",
        "redis: 0.3 ms a round trip",
        "redis: its clock and ours differ by +0.0 s; only the times in logs suffer",
    ]


@pytest.mark.parametrize(("version", "grade"), [("3.5.0", Grade.OK), ("3.4.1", Grade.BAD), (None, Grade.BAD)])
def test_hiredis_is_there_and_does_not_leak(version: str | None, grade: Grade) -> None:
    """A missing or leaking hiredis is bad."""
    assert next(judge_installation(version, uvloop=True)).grade is grade


@pytest.mark.parametrize(
    ("why", "trusts", "fsync", "grades"),
    [
        ("run", False, "everysec", [Grade.OK]),
        ("lost", True, "always", [Grade.OK]),
        ("lost", True, None, [Grade.OK]),
        ("lost", True, "everysec", [Grade.OK, Grade.BAD]),
        ("absurd", False, "everysec", [Grade.WARNING]),
    ],
)
def test_an_era_says_why_it_began(why: str, trusts: bool, fsync: str | None, grades: list[Grade]) -> None:
    """A clock that could not be right is somebody's mistake; trust in restarts needs a file that is always flushed."""
    findings = list(judge_era(Era("ab", why, 1), "noon", trusts_restarts=trusts, fsync=fsync))
    assert [finding.grade for finding in findings] == grades
    assert WHY[why] in findings[0].what


def test_a_process_whose_reads_are_refused_is_named() -> None:
    """It answers, and everything is loaded: the one whose reads are served is not mentioned."""
    sound = ProcessReport("web-1.7", 1, 0, 0, 0, None, 0, 0, {}, {})
    refused = ProcessReport("web-2.8", 1, 0, 0, 0, None, 0, 0, {}, {}, "NOPERM this user may not run 'mget'")
    (finding,) = judge_reads([sound, refused])
    assert finding.grade is Grade.BAD
    assert "web-2.8: Redis refuses its reads: NOPERM" in finding.what
    assert finding.fix
