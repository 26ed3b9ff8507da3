"""What the page concludes, without a server: the state, users' names, what a counter counts, what did what."""

from __future__ import annotations

from collections import Counter

import pytest

from cachebus.monitoring.page.tabs.inventory import used_of
from cachebus.monitoring.people import Owned, names_of_user
from cachebus.monitoring.verdict.assessment import Level, Signs, Since, verdict
from cachebus.monitoring.verdict.signs import Evictions, add_reads


@pytest.mark.parametrize(
    ("signs", "level", "tab"),
    [
        (Signs(away=["Redis"]), "bad", "machine"),
        (Signs(memory=0.97), "bad", "machine"),
        (Signs(memory=0.85), "warn", "machine"),
        (Signs(clients=0.9), "warn", "machine"),
        (Signs(evicts=True), "warn", "machine"),
        (Signs(unheld=[0]), "bad", "machine"),
        (Signs(unheld=[3], workers=2), "bad", "machine"),
        (Signs(queued=2), "bad", "machine"),
        (Signs(refused="CROSSSLOT Keys in request"), "warn", "machine"),
        (Signs(waiting=5000), "warn", "machine"),
        (Signs(unready=["worker a is broken: events 0"]), "warn", "machine"),
        (Signs(p99_ms=float("inf")), "warn", "events"),
        (Signs(stale_detected=1), "bad", "views"),
        (Signs(shared_views=["two applications declare one view"]), "warn", "views"),
        (Signs(letters=1, now_ms=3_600_000, newest_letter_ms=3_599_000), "warn", "failures"),
        (Signs(failed_jobs=["report"]), "warn", "jobs"),
        (Signs(late_jobs=["report"]), "warn", "jobs"),
        (Signs(hit_rate=0.79), "warn", "views"),
        (Signs(slow_hits={"report:{day}": 6.0}), "warn", "views"),
        (Signs(bypassed={"answer:{user_id}": 500}), "warn", "views"),
        (Signs(load_errors=1, loads=99), "warn", "views"),
        (Signs(load_errors=10, loads=90), "bad", "views"),
        (Signs(lag_ms=400), "warn", "machine"),
        (Signs(evictions=12), "warn", "machine"),
        (Signs(memory=0.85, unlimited=True), "warn", "machine"),
        (Signs(p50_ms=float("inf"), p99_ms=float("inf")), "bad", "events"),
    ],
)
def test_each_fault_has_a_colour_and_a_place(signs: Signs, level: Level, tab: str) -> None:
    """Nothing that is wrong is green; the reason leads to the tab that shows it."""
    found = verdict(signs)
    assert (found.level, found.reasons[0].tab) == (level, tab)


def test_all_well_is_green_and_old_letters_are_no_news() -> None:
    """Letters nobody has looked at for an hour stay on the list, and off the sentence."""
    assert verdict(Signs()).level == "ok"
    found = verdict(Signs(letters=3, now_ms=9_000_000, newest_letter_ms=1, paused_jobs=["report"], unlimited=True))
    assert found.level == "ok"
    assert [reason.tab for reason in found.reasons] == ["machine", "failures", "jobs"]
    assert found.reasons[1].text == "3 dead letters, the newest 2 h ago"


def test_a_slow_half_is_not_one_event_in_a_hundred() -> None:
    """What most events suffer is said of most events."""
    assert verdict(Signs(p50_ms=float("inf"), p99_ms=float("inf"))).says == (
        "Half of the events took more than 10 s until values were fresh."
    )


def test_a_reason_keeps_its_since_when_and_a_start_is_no_alarm() -> None:
    """A reason is as old as it has lasted, whatever its figures; what a start brings is said once it lasts."""
    since = Since()
    assert verdict(Signs(unheld=[0], waiting=2000, now_ms=1000), since).reasons[0].since_ms == 1000
    assert verdict(Signs(unheld=[0], waiting=3000, now_ms=9000), since).level == "warn"
    found = verdict(Signs(unheld=[0], waiting=4000, now_ms=16_000), since)
    assert [(reason.key, reason.since_ms) for reason in found.reasons] == [("no worker", 1000), ("waiting", 1000)]
    verdict(Signs(now_ms=17_000), since)
    assert verdict(Signs(waiting=2000, now_ms=18_000), since).reasons[0].since_ms == 18_000


def test_evictions_that_rise_are_told_from_those_that_are_usual() -> None:
    """Ten minutes are compared with the ten before; a server that began again is not compared."""
    minute, usual, rising = 60_000, Evictions(), Evictions()
    assert [usual.more(at * minute, at * 10) for at in range(25)] == [0] * 25
    assert [rising.more(at * minute, at**3) for at in range(25)][-1] > 0
    assert rising.more(26 * minute, 3) == 0


def test_what_the_counters_say_is_read_as_it_is_meant() -> None:
    """Warming is no part of the hit rate, anonymous reads of a view that is otherwise cached are no fault."""
    signs = Signs()
    views = {
        "orders:{user_id}": Counter(l1_hits=900, loads=100, warms=5000, hits_timed=2, hit_us=14_000),
        "answer:{user_id}": Counter(bypassed=200),
        "profile:{user_id}": Counter(bypassed=200, l1_hits=5000),
    }
    add_reads(signs, {0: views})
    assert signs.hit_rate == pytest.approx(5900 / 6000)
    assert signs.slow_hits == {"orders:{user_id}": 7.0}
    assert signs.bypassed == {"answer:{user_id}": 200}


def test_the_worst_is_said_first() -> None:
    """Red before amber, and the sentence counts the rest."""
    found = verdict(Signs(waiting=5000, evicts=True, queued=1))
    assert found.level == "bad"
    assert "1 invalidation waits for Redis" in found.says
    assert found.says.endswith("(and 2 more things).")


def test_a_users_entries_are_reached_by_prefix_key_and_tag() -> None:
    """Exactly his: words of a key end at ':', so user 1 is not user 12, and an id cannot smuggle in a ':'."""
    views = [
        Owned("portfolio:{user_id}:trades:{page}", ("owner:{user_id}", "page:{page}"), "user_id"),
        Owned("profile:{user_id}", (), "user_id"),
        Owned("report:{day}:{user_id}", ("user:{user_id}",), "user_id"),
    ]
    names = names_of_user(views, "1")
    assert names.keys == ["profile:1"]
    assert names.prefixes == ["portfolio:1:"]
    assert names.tags == ["user:1", "owner:1"]
    assert names_of_user(views, "1:x").keys == ["profile:1%3Ax"]


@pytest.mark.parametrize(
    ("strategy", "stored", "used"),
    [
        ("windows", b"1000 17 3 4 5", 12),
        ("fixed", b"1700000000000000 9", 9),
        ("bucket", b"1500000 1700000000000 60000", 25),
        ("windows", None, None),
        ("bucket", b"", None),
    ],
)
def test_a_limits_counter_is_read_as_its_script_wrote_it(strategy: str, stored: bytes | None, used: int | None) -> None:
    """What cannot be told is None, never a guess."""
    assert used_of(strategy, stored) == used
