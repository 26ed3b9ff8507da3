"""A process that begins, or begins anew, knows what was invalidated lately: it asks about nothing else."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from cachebus import Cache, CacheSettings, View
from cachebus.freshness import ledger as ledger_module
from cachebus.freshness.ledger import Ledger, Question
from cachebus.testing.server import PrivateServer
from tests.conftest import Connect
from tests.support.waiting import until


@pytest.fixture
def questions(monkeypatch: pytest.MonkeyPatch) -> list[Sequence[str]]:
    """What any process asks the ledger about."""
    asked: list[Sequence[str]] = []
    question = Ledger.question

    def noted(ledger: Ledger, names: tuple[str, ...]) -> Question:
        asked.append(names)
        return question(ledger, names)

    monkeypatch.setattr(Ledger, "question", noted)
    return asked


def numbered(cache: Cache, numbers: dict[int, int]) -> View[..., int]:
    """Return a view of *numbers*."""

    @cache.view("numbered:{n}", ttl="1h", tags=["numbers"])
    async def number(n: int) -> int:
        return numbers[n]

    return number


async def test_a_new_process_asks_nothing_about_what_was_stored_before_it(
    connect: Connect, questions: list[Sequence[str]]
) -> None:
    """It has read what was invalidated before it began: a hit in Redis is one command from the first read on."""
    numbers = {1: 1, 2: 1}
    old = numbered(await connect(), numbers)
    assert [await old(1), await old(2)] == [1, 1]
    numbers[1] = numbers[2] = 2
    await old.invalidate(1)
    new = numbered(await connect(), numbers)
    await heard(new)
    questions.clear()
    assert [await new(1), await new(2)] == [2, 1]
    assert questions == []


async def test_what_is_older_than_a_new_process_knows_is_asked_about(
    connect: Connect, questions: list[Sequence[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the newest scopes are read at once; an invalidation older than those is found all the same."""
    monkeypatch.setattr(ledger_module, "NEWEST", 5)
    numbers = {1: 1, 2: 1}
    old = numbered(await connect(), numbers)
    assert [await old(1), await old(2)] == [1, 1]
    numbers[1] = numbers[2] = 2
    await old.invalidate(1)
    for n in range(3, 9):
        await old.invalidate(n)
    new = numbered(await connect(), numbers)
    await heard(new)
    questions.clear()
    assert [await new(1), await new(2)] == [2, 1]
    assert questions


async def test_a_cache_that_is_opened_again_remembers_nothing_of_how_fresh_things_were(
    connect: Connect, server: PrivateServer, namespace: str
) -> None:
    """It is closed, somebody invalidates what it had read, it is opened: what Redis holds is old, and not served."""
    numbers = {1: 1}
    cache = Cache(settings=CacheSettings(url=server.url, namespace=namespace))
    number, elsewhere = numbered(cache, numbers), await connect()
    for now in range(1, 5):
        async with cache:
            await heard(number)
            assert await number(1) == now
        numbers[1] = now + 1
        await elsewhere.invalidate(tags=["numbers"])


async def heard(view: View[..., int]) -> None:
    """Wait until the process of *view* follows the journal."""
    cache = view.host
    await until(lambda: cache.reader is not None and cache.reader.freshness.heard_at > 0, "the journal")
