"""What the page concludes, without a server: the state, users' names, what a counter counts, what did what."""

from __future__ import annotations

import pytest

from cachebus import Cache
from cachebus.timeline import Happening, Seen, _merged
from gateway.page.inventory import used_of
from gateway.page.people import of_user
from gateway.page.verdict import Level, Signs, verdict


@pytest.mark.parametrize(
    ("signs", "level", "panel"),
    [
        (Signs(away=["Redis"]), "bad", "redis"),
        (Signs(memory=0.97), "bad", "redis"),
        (Signs(memory=0.85), "warn", "redis"),
        (Signs(clients=0.9), "warn", "redis"),
        (Signs(evicts=True), "warn", "redis"),
        (Signs(unheld=[0]), "bad", "processes"),
        (Signs(unheld=[3], workers=2), "bad", "processes"),
        (Signs(queued=2), "bad", "processes"),
        (Signs(waiting=5000), "warn", "processes"),
        (Signs(unready=["worker a is broken: events 0"]), "warn", "processes"),
        (Signs(p99_ms=float("inf")), "warn", "latency"),
        (Signs(stale_detected=1), "bad", "views"),
        (Signs(letters=1, now_ms=3_600_000, newest_letter_ms=3_599_000), "warn", "letters"),
        (Signs(failed_jobs=["report"]), "warn", "schedules"),
    ],
)
def test_each_fault_has_a_colour_and_a_place(signs: Signs, level: Level, panel: str) -> None:
    """Nothing that is wrong is green; the reason leads to the panel that shows it."""
    found = verdict(signs)
    assert (found.level, found.reasons[0].panel) == (level, panel)


def test_all_well_is_green_and_old_letters_are_no_news() -> None:
    """Letters nobody has looked at for an hour stay on the list, and off the sentence."""
    assert verdict(Signs()).level == "ok"
    assert verdict(Signs(letters=3, now_ms=9_000_000, newest_letter_ms=1)).level == "ok"


def test_the_worst_is_said_first() -> None:
    """Red before amber, and the sentence counts the rest."""
    found = verdict(Signs(waiting=5000, evicts=True, queued=1))
    assert found.level == "bad"
    assert "1 invalidations wait" in found.says
    assert found.says.endswith("(and 2 more things).")


def test_a_users_entries_are_reached_by_prefix_key_and_tag() -> None:
    """Exactly his: words of a key end at ':', so user 1 is not user 12, and an id cannot smuggle in a ':'."""
    cache = Cache.memory()

    @cache.view("portfolio:{user_id}:trades:{page}", tags=["owner:{user_id}", "page:{page}"])
    async def trades(user_id: str, page: int) -> str: ...

    @cache.view("profile:{user_id}")
    async def profile(user_id: str) -> str: ...

    @cache.view("report:{day}:{user_id}", tags=["user:{user_id}"])
    async def report(day: str, user_id: str) -> str: ...

    @cache.view("market:{symbol}")
    async def market(symbol: str) -> str: ...

    names = of_user(cache, "1")
    assert names.keys == ["profile:1"]
    assert names.prefixes == ["portfolio:1:"]
    assert names.tags == ["user:1", "owner:1"]
    assert of_user(cache, "1:x").keys == ["profile:1%3Ax"]


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


def test_commits_that_cannot_be_told_apart_are_shown_as_one() -> None:
    """Several events and commits right behind each other: together. After a single event, or later: by themselves."""

    def commit(clock: int, *events: int) -> Happening:
        seen = [Seen("trade", "", "", at, "") for at in events]
        return Happening(clock / 1000, clock, seen, [f"t:{clock}"], [])

    together = _merged([commit(10_000, 5, 6), commit(12_000), commit(14_000, 13)])
    assert [one.scopes for one in together] == [["t:10000", "t:12000", "t:14000"]]
    assert [event.at_ms for event in together[0].events] == [5, 6, 13]
    assert together[0].latency_ms == 9
    assert len(_merged([commit(10_000, 5), commit(12_000), commit(13_000, 12)])) == 3
    assert len(_merged([commit(10_000, 5, 6), commit(900_000)])) == 2


def test_a_storm_is_numbers_not_pages() -> None:
    """A thousand commits of two events in one look are one line that names a dozen and counts the rest."""
    seen = Seen("trade", "", "", 0, "")
    (one,) = _merged([Happening(at, at * 1000, [seen, seen], [f"t:{at}"], []) for at in range(1, 1001)])
    assert (len(one.events), one.more_events) == (12, 1988)
    assert (len(one.scopes), one.more_scopes) == (12, 988)
    assert one.latency_ms is None
