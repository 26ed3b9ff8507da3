"""Workers and server die, stall and are cut off at random: each event's effects are there once, in order."""

from __future__ import annotations

from cachebus.bus.letters import Letter
from tests.support.bus_harness import PLAIN, check, crash
from tests.support.bus_later_harness import crash_an_import

FAULTS = {"kill": 5, "stop": 2, "die": 1, "cut": 1, "swallow": 1}


async def test_every_fault_at_random_loses_nothing_and_doubles_nothing() -> None:
    """kill -9, SIGSTOP in a handler, a restarted server, cut and black-holed connections, 1,000 events."""
    findings, harness = await crash(events=1000, faults=FAULTS, seed=3)
    assert findings.sound, findings
    assert findings.published - findings.plain == 1000
    assert findings.plain == 250
    assert len(harness.takeovers_s) == FAULTS["kill"]


async def test_an_import_is_one_broadcast_and_delayed_events_come_once_under_kill_9() -> None:
    """1,000 debounced events, half of them plain, three kills; delayed events, some due while no worker lives."""
    findings, _ = await crash_an_import(events=1000, kills=3)
    assert findings.sound, findings
    assert findings.imported >= 1000
    assert findings.delayed >= 100


def test_the_checker_names_what_is_lost_twice_invented_out_of_order_and_not_invalidated() -> None:
    """Each kind of damage, by itself, in a record made up for it."""
    scopes = {"t:n:0", "t:n:1", "t:n:2"}
    assert check([0, 1, 2], [0, 1, 2], scopes, []).sound
    assert check([0, 1, 2], [0, 2], scopes, []).lost == [1]
    assert check([0, 1, 2], [0, 1, 1, 2], scopes, []).twice == [1]
    assert check([0, 1], [0, 1, 2], scopes, []).invented == [2]
    assert check([0, 1, 2], [0, 2, 1], scopes, []).disordered == 1
    assert check([0, 1, 2], [0, 1, 2], {"t:n:0"}, []).not_invalidated == [1, 2]
    letter = Letter("1-0", "failed", "numbers", b'{"n": 1}', "numbers", 3, "it failed", "", "", "", "1-0", "1-0")
    assert not check([0], [0], scopes, [letter]).sound
    condemned = check([0, 1, 2], [0, 2, 1], scopes, [letter._replace(kind="poison")])
    assert (condemned.condemned, condemned.sound) == ([1], True)
    plain = check([PLAIN, PLAIN + 1], [PLAIN + 1, PLAIN], {f"t:n:{PLAIN}", f"t:n:{PLAIN + 1}"}, [])
    assert (plain.plain, plain.plain_disordered, plain.sound) == (2, 1, True)
