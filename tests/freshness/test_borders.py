"""The rule at its borders: the very clock, the very moment, the very second."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import pytest

from cachebus.freshness import rule
from cachebus.freshness.clock import Born, clock_of
from cachebus.freshness.rule import TRUST_S, Freshness, LedgerAnswer, Record, Verdict

ERA, OTHER = "e" * 16, "f" * 16


@dataclass
class Loaded:
    """A value in memory."""

    as_of: Born
    scopes: tuple[str, ...]
    moment: int | None = 0
    checked: int = -1


def following(clock: int = 10, since: int = 0, **newest: int) -> Freshness:
    """Return the table of a process that follows the journal from *clock* on."""
    freshness = Freshness(ERA)
    freshness.resync(clock, since, newest)
    return freshness


def test_a_record_is_applied_whole() -> None:
    """Position, clock, what it invalidates, whom it tells; each hit in memory is looked at again."""
    freshness = following()
    told: list[tuple[tuple[str, ...], int]] = []

    def watcher(scopes: Iterable[str], clock: int) -> None:
        told.append((tuple(scopes), clock))

    freshness.watchers = (watcher,)
    before = freshness.version
    assert freshness.applied(Record(12, 10, ERA, ("a", "b")))
    assert (freshness.position, freshness.seen, freshness.latest(["a"]), told) == (12, 12, 12, [(("a", "b"), 12)])
    assert freshness.version > before
    before = freshness.version
    assert freshness.applied(Record(15, 12, ERA, (), "k"))
    assert (freshness.position, freshness.seen, freshness.replaced_at("k")) == (15, 15, 15)
    assert (freshness.version, told[1:]) == (before, [])


@pytest.mark.parametrize("record", [Record(15, 11, ERA, ("a",)), Record(15, 10, OTHER, ("a",))])
def test_where_a_record_is_missing_nothing_is_applied(record: Record) -> None:
    """Nor where it is of another era."""
    freshness = following()
    assert not freshness.applied(record)
    assert (freshness.position, freshness.seen, freshness.latest(["a"])) == (10, 10, 0)


def test_an_older_invalidation_changes_no_newer_one() -> None:
    """Its own, and then the journal's, which comes later and is older."""
    freshness = following()
    freshness.invalidated(["a"], 20)
    freshness.invalidated(["a"], 15)
    assert (freshness.latest(["a"]), freshness.seen) == (20, 20)


def test_a_journal_is_reached_at_the_very_clock() -> None:
    """Not one behind it, of another era, queued, or no clock at all; in a process of its own always."""
    freshness = following(12)
    assert freshness.has_reached("nonsense")
    freshness.heard(1.0)
    said = [Born(12, ERA), Born(13, ERA), Born(12, OTHER), Born(1, ERA)]
    assert [freshness.has_reached(clock_of(born)) for born in said] == [True, False, False, True]
    assert not freshness.has_reached(clock_of(Born(1, ERA), queued=True))
    assert not freshness.has_reached("nonsense")


def test_a_table_is_trusted_so_long_and_no_longer() -> None:
    """From the sending of the question; not once the connection is lost; a process of its own always."""
    freshness = Freshness()
    assert freshness.hears(1e12)
    freshness.heard(100.0)
    assert [freshness.hears(100.0 + s) for s in (0.0, TRUST_S, TRUST_S + 0.001)] == [True, True, False]
    freshness.lost()
    assert not freshness.hears(100.0)
    assert freshness.last_heard_at == 100.0


def test_in_another_era_nothing_is_known_but_what_the_handshake_says() -> None:
    """Clocks begin again, lower ones too; the journal is not heard yet."""
    freshness = following(1000, 500, old=900)
    freshness.heard(1.0)
    freshness.enter(OTHER, 5, 3, {"new": 4})
    assert (freshness.era, freshness.seen, freshness.position, freshness.since) == (OTHER, 5, 5, 3)
    assert (freshness.latest(["old"]), freshness.latest(["new"])) == (0, 4)
    assert not freshness.hears(1.0)


def test_a_new_beginning_keeps_what_this_process_knows_beyond_it() -> None:
    """Its own invalidations that are newer than the reply, and how far back its table reaches."""
    freshness = following(10, 2, a=5)
    freshness.invalidated(["mine"], 30)
    before = freshness.version
    freshness.resync(20, 8, {"a": 12, "mine": 15})
    assert (freshness.latest(["a"]), freshness.latest(["mine"])) == (12, 30)
    assert (freshness.position, freshness.seen, freshness.since) == (20, 30, 8)
    assert freshness.version > before
    freshness.resync(20, 3, {})
    assert (freshness.since, freshness.latest(["a"]), freshness.latest(["mine"])) == (3, 0, 30)
    freshness.since = 25
    freshness.resync(24, 3, {})
    assert freshness.since == 25
    freshness.resync(25, 4, {})
    assert freshness.since == 4


def test_the_older_half_is_forgotten_when_there_is_no_room_and_not_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is asked about from then on is what is older than that."""
    monkeypatch.setattr(rule, "TABLE_SCOPES", 10)
    freshness, reaches = following(0), []
    for clock in range(1, 19):
        freshness.invalidated([f"t:{clock}"], clock)
        reaches.append(freshness.since)
    assert reaches == [0] * 11 + [6] * 6 + [12]
    assert [freshness.latest([f"t:{clock}"]) for clock in (12, 13, 18)] == [0, 13, 18]


def test_a_process_that_has_heard_nothing_claims_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor one that enters an empty era. Nothing is older than what it knows, until it forgets something."""
    monkeypatch.setattr(rule, "TABLE_SCOPES", 3)
    fresh = Freshness(ERA)
    fresh.invalidated(["a", "b"], 20)
    assert fresh.since == 0
    fresh = Freshness(ERA)
    fresh.lost()
    assert (fresh.born, fresh.replaced_at("k"), fresh.since) == (Born(0, ERA), 0, 0)
    assert not fresh.has_reached(clock_of(Born(1, ERA)))
    fresh.enter(OTHER, 0, 0, {})
    assert (fresh.born, fresh.since) == (Born(0, OTHER), 0)
    for clock in (20, 40):
        fresh.invalidated(["a", "b"], clock)
        assert fresh.since == 0
        fresh.resync(clock + 1, 0, {})


def test_a_plain_value_that_was_set_is_read_again_from_that_clock_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many are remembered: copies older than the last one forgotten are read again, whatever their key."""
    monkeypatch.setattr(rule, "REPLACED_KEYS", 2)
    freshness = following(1)
    assert freshness.replaced_at("a") == 1
    for key, clock in (("a", 3), ("b", 4), ("a", 5), ("a", 2)):
        freshness.replaced(key, clock)
    assert [freshness.replaced_at(key) for key in "abc"] == [5, 4, 1]
    freshness.replaced("c", 6)
    assert [freshness.replaced_at(key) for key in "abcd"] == [5, 4, 6, 4]
    freshness.resync(9, 0, {})
    assert freshness.replaced_at("c") == 9


def test_an_invalidation_that_waits_holds_here_for_what_was_loaded_before_it() -> None:
    """Loaded in its moment or later is valid; told apart by scope, until it is delivered, and no later one with it."""
    freshness, born = following(), Born(10, ERA)
    before, version = freshness.moment(), freshness.version
    freshness.queued(["a"])
    assert freshness.version > version
    assert (freshness.is_pending(["b", "a"]), freshness.is_pending(["b"])) == (True, False)

    def said(moment: int | None, scope: str = "a") -> Verdict:
        return freshness.judge(born, [scope], heard=True, moment=moment)

    assert [said(None), said(before), said(freshness.moment())] == [Verdict.INVALID, Verdict.INVALID, Verdict.VALID]
    assert said(before, "b") is Verdict.VALID
    first = freshness.moment()
    freshness.queued(["a"])
    freshness.delivered(["a", "never queued"], first)
    assert freshness.is_pending(["a"])
    freshness.delivered(["a"], freshness.moment())
    assert not freshness.is_pending(["a"])
    assert said(None) is Verdict.VALID


def test_a_verdict_at_the_very_clock() -> None:
    """Born at an invalidation is after it; born where the table begins to reach is known."""
    freshness = following(20, 10, a=15)
    said = [freshness.judge(Born(number, ERA), ["a"], heard=True) for number in (14, 15)]
    assert said == [Verdict.INVALID, Verdict.VALID]
    said = [freshness.judge(Born(number, ERA), ["b"], heard=True) for number in (9, 10)]
    assert said == [Verdict.ASK, Verdict.VALID]
    assert freshness.judge(Born(20, ERA), ["b"], heard=False) is Verdict.ASK
    assert freshness.judge(Born(20, OTHER), ["b"], heard=True) is Verdict.INVALID
    assert freshness.latest(["b", "a", "b"]) == 15


def test_a_load_is_overtaken_by_what_was_invalidated_before_its_caller_came() -> None:
    """After the load began, and not after the caller came; in one era."""
    freshness = following()
    freshness.invalidated(["late"], 15)
    assert freshness.is_overtaken(Born(14, ERA), ["other", "late"], 15)
    for born, came_at in ((Born(15, ERA), 20), (Born(14, ERA), 14), (Born(14, OTHER), 20)):
        assert not freshness.is_overtaken(born, ["late"], came_at)
    assert not freshness.is_overtaken(Born(14, ERA), ["other"], 20)


def test_the_ledger_s_word_is_learnt_once() -> None:
    """What is new makes every hit be looked at again; what is known, or older, changes nothing."""
    freshness = following()
    before = freshness.version
    freshness.learn({"a": 7, "b": 0}, 30)
    assert (freshness.latest(["a"]), freshness.seen) == (7, 30)
    assert freshness.version > before
    before = freshness.version
    for clock in (7, 6):
        freshness.learn({"a": clock}, 20)
    assert (freshness.latest(["a"]), freshness.seen, freshness.version) == (7, 30, before)


def test_the_ledger_allows_what_was_born_at_its_very_clock() -> None:
    """Not before its floor, in another era, or where there is no ledger."""
    answer = LedgerAnswer(ERA, 20, 10, {"a": 15})
    allowed = [(10, "b"), (15, "a")]
    refused = [(9, "b"), (14, "a")]
    assert all(answer.allows(Born(number, ERA), [scope]) for number, scope in allowed)
    assert not any(answer.allows(Born(number, ERA), [scope]) for number, scope in refused)
    assert not answer.allows(Born(14, ERA), ["b", "a"])
    assert not answer.allows(Born(20, OTHER), ["b"])
    assert not answer._replace(era="").allows(Born(20, ""), ["b"])


def test_what_memory_holds_is_looked_up_wherever_its_scope_is_known() -> None:
    """Among the young, among the older, among neither."""
    freshness = following(0)
    freshness.invalidated(["young"], 5)
    freshness._keep({"older": 5}, {"young": 5})
    for scope in ("young", "older"):
        assert [freshness.holds(Loaded(Born(born, ERA), (scope, "other"))) for born in (4, 5)] == [False, True]
    assert freshness.holds(Loaded(Born(4, ERA), ("other",)))


def test_a_scope_the_ledger_does_not_know_was_never_invalidated() -> None:
    """Not even a value as old as the ledger is too old for it."""
    assert LedgerAnswer(ERA, 5, 0, {}).allows(Born(0, ERA), ["a"])
