"""The table of one process: what it forgets it asks about, and it never stops the loop to forget."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cachebus.freshness import rule
from cachebus.freshness.clock import Born
from cachebus.freshness.rule import Freshness, Verdict

ERA = "e" * 16


@dataclass
class InMemory:
    """What the rule sees of a value in memory."""

    as_of: Born
    scopes: tuple[str, ...]
    moment: int | None
    checked: int = -1


@given(scopes=st.lists(st.integers(0, 40), max_size=200), born=st.integers(0, 220), asked=st.integers(0, 40))
def test_what_was_forgotten_is_asked_about(scopes: list[int], born: int, asked: int) -> None:
    """VALID is said only of what no invalidation followed, INVALID only of what one did: whatever was forgotten."""
    with pytest.MonkeyPatch.context() as small:
        small.setattr(rule, "TABLE_SCOPES", 10)
        freshness, last = Freshness(ERA), defaultdict[int, int](int)
        for clock, scope in enumerate(scopes, 1):
            freshness.invalidated([f"t:{scope}"], clock)
            last[scope] = clock
        said = freshness.judge(Born(born, ERA), [f"t:{asked}"], heard=True)
    assert said is Verdict.ASK or (said is Verdict.VALID) == (born >= last[asked])
    if born >= len(scopes):
        assert said is Verdict.VALID
    recent = set(scopes[-5:])
    if asked in recent:
        assert (said is Verdict.INVALID) == (born < last[asked])


@given(
    invalidated=st.lists(st.integers(0, 20), min_size=10, max_size=30),
    queued=st.lists(st.integers(0, 20), max_size=1),
    born=st.tuples(st.integers(0, 30), st.sampled_from([ERA, ERA, ERA, "f" * 16])),
    scopes=st.lists(st.integers(0, 20), max_size=3),
    loaded=st.none() | st.integers(-1, 2),
)
@example(invalidated=list(range(10)), queued=[], born=(2, ERA), scopes=[3], loaded=None)  # in the older generation
def test_a_hit_in_memory_is_judged_as_everything_else(
    invalidated: list[int], queued: list[int], born: tuple[int, str], scopes: list[int], loaded: int | None
) -> None:
    """The shorter way says the same, whatever is in the table, forgotten, waiting to be sent, or of another era."""
    with pytest.MonkeyPatch.context() as small:
        small.setattr(rule, "TABLE_SCOPES", 10)
        freshness = Freshness(ERA)
        moment = None if loaded is None else freshness.moment() + loaded
        for clock, scope in enumerate(invalidated, 1):
            freshness.invalidated([f"t:{scope}"], clock)
        for scope in queued:
            freshness.queued([f"t:{scope}"])
    held = InMemory(Born(*born), tuple(f"t:{scope}" for scope in scopes), moment)
    said = freshness.judge(held.as_of, held.scopes, heard=True, moment=moment)
    assert freshness.holds(held) == (said is Verdict.VALID)
    assert held.checked == (freshness.version if said is Verdict.VALID else -1)


def test_another_thread_serves_nothing_of_an_era_that_ends_while_it_looks() -> None:
    """Its table is empty then; what it had said of the value is forgotten."""
    freshness = Freshness(ERA)
    freshness.invalidated(["t:1"], 10)

    class Meanwhile(tuple[str, ...]):
        __slots__ = ()

        def __iter__(self) -> Iterator[str]:
            freshness.enter("f" * 16, 20, 0, {})
            return super().__iter__()

    assert not freshness.holds(InMemory(Born(5, ERA), Meanwhile(["t:1"]), None))


def test_the_newest_half_is_never_forgotten() -> None:
    """And no more than the table's size is kept."""
    freshness = Freshness(ERA)
    for clock in range(1, 3 * rule.TABLE_SCOPES):
        freshness.invalidated([f"t:{clock}"], clock)
    oldest_kept = 3 * rule.TABLE_SCOPES - rule.TABLE_SCOPES // 2
    assert freshness.since <= oldest_kept
    assert len(freshness._young) + len(freshness._older) <= rule.TABLE_SCOPES + 1
