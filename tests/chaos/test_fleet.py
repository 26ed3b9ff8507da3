"""The checkers of the fleet: each thing that may be wrong with it is found, and what may be is let pass."""

from __future__ import annotations

from pathlib import Path

import pytest

from cachebus.bus.effects import Broadcast, Effects, Invalidate
from cachebus.bus.engine.consumer import Consumer
from cachebus.bus.handlers import on
from cachebus.redis.client import Client
from tests.support.fleet.checker import Seen, check_events, stale_reads
from tests.support.fleet.notes import Accepted, AnyNote, Began, Invalidated, Notebook, Past, Read, Stalled
from tests.support.fleet.shape import CHANNEL, Changed, mark
from tests.support.fleet.witness import Witness
from tests.support.serving import add, running
from tests.support.waiting import until


def published(*numbers: int, doubt: int = 0) -> list[AnyNote]:
    """Return the notes of an application that published these versions of one key; *doubt* without an answer."""
    notes: list[AnyNote] = [Began("key", n, event=True) for n in (*numbers, doubt) if n]
    return notes + [Accepted("key", n) for n in numbers]


@pytest.mark.parametrize(
    ("feed", "wrong"),
    [
        ([1, 2, 3], {}),
        ([1, 2, 3, 4], {}),
        ([1, 3], {"lost": [2]}),
        ([1, 2, 2, 3], {"twice": [2]}),
        ([1, 2, 3, 4, 4], {"twice": [4]}),
        ([1, 3, 2], {"out of order": [2]}),
        ([1, 2, 3, 5], {"invented": [5]}),
    ],
)
def test_what_is_wrong_with_events_is_found(feed: list[int], wrong: dict[str, list[int]]) -> None:
    """Three were accepted; of a fourth its application was killed before the answer: it may be there, once."""
    found = check_events(published(1, 2, 3, doubt=4), [Seen(("key", n), 0.0) for n in feed])
    assert {kind: [n for _, n in events] for kind, events in found.items() if events} == wrong


def test_only_what_was_replayed_may_be_late() -> None:
    """It has no order, and is once all the same."""
    notes, feed = published(1, 2, 3), [Seen(("key", n), 0.0) for n in (2, 3, 1, 1)]
    assert check_events(notes, feed)["out of order"] == [("key", 1)]
    found = check_events(notes, feed, late=[("key", 1)])
    assert (found["out of order"], found["twice"]) == ([], [("key", 1)])


@pytest.mark.parametrize(
    ("began", "own", "stalled", "stale"),
    [
        (10.2, 0, False, False),
        (10.3, 0, False, True),
        (10.0, 2, False, True),
        (11.0, 0, True, False),
        (13.1, 0, True, True),
    ],
)
@pytest.mark.parametrize("by_event", [True, False])
def test_a_read_of_what_was_gone_is_found(began: float, own: int, stalled: bool, stale: bool, by_event: bool) -> None:
    """Version 1 was gone at 10.0, by a commit or directly: 0.25 s later, 2 s after a stop, at once in its process."""
    read = Read("key", 1, began, connected=True, own=own)
    notes: dict[str, list[AnyNote]] = {"reader": [read], "writer": []}
    if stalled:
        notes["reader"].append(Stalled(10.5, 10.9))
    if not by_event:
        notes["writer"].append(Invalidated("key", 2, 10.0))
    found = stale_reads(notes, [Seen(("key", 2), 10.0)] if by_event else [])
    assert [(each.application, each.newest) for each in found] == [("reader", 2)] * stale


def test_a_process_continues_the_notes_of_the_one_before_it(tmp_path: Path) -> None:
    """It knows where that one ended, and what it was not told of."""
    assert (Past.of(tmp_path / "none").last("key"), Past.of(tmp_path / "none").in_doubt("key")) == (0, False)
    book = Notebook(tmp_path / "notes")
    for note in published(1, 2, doubt=3):
        book.write(note)
    past = Past.of(tmp_path / "notes")
    assert (past.last("key"), past.in_doubt("key")) == (3, True)
    book.write(Accepted("key", 3))
    assert not Past.of(tmp_path / "notes").in_doubt("key")


@pytest.mark.parametrize("invalidates", [True, False])
async def test_a_broadcast_without_its_invalidation_is_found(client: Client, invalidates: bool) -> None:
    """The witness asks the ledger about each event that it sees in the feed."""

    @on(CHANNEL, Changed)
    async def handler(event: Changed) -> Effects:
        tag = mark(event.key, event.n) if invalidates else "another"
        return [Invalidate(tags=tag), Broadcast(CHANNEL, "changed", event)]

    witness = Witness(client)
    async with running(Consumer(client, [handler]), witness):
        await add(client, CHANNEL, b'{"key": "0-shop", "n": 1}')
        await until(lambda: witness.in_era == 1)
    assert [seen.event for seen in witness.feed] == [("0-shop", 1)]
    assert bool(witness.wrong) is not invalidates
