"""A process that begins, or begins anew, knows what was invalidated lately: it asks about nothing else."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from cachebus import Cache, CacheSettings, View
from cachebus import ledger as ledger_module
from cachebus.freshness import Freshness, Verdict
from cachebus.ledger import Ledger, resync
from cachebus.private_server import PrivateServer
from tests.conftest import Connect
from tests.waiting import until


@pytest.fixture
def questions(monkeypatch: pytest.MonkeyPatch) -> list[Sequence[str]]:
    """What any process asks the ledger about."""
    asked: list[Sequence[str]] = []
    question = Ledger.question

    def noted(ledger: Ledger, names: Sequence[str]) -> tuple[str, ...]:
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


@pytest.mark.parametrize("start", [100, 700], ids=["the same ledger", "a later one"])
async def test_scopes_of_a_ledger_that_began_meanwhile_are_not_taken_for_all(start: int) -> None:
    """Clock of one ledger, scopes of the next: what the first one knew is asked about, not taken for untouched."""
    freshness = Freshness()
    later = {"@clock": 700, "@start": start, "k:a": 650, "@floor": 0}

    class Replaced:
        async def call(self, *_: object) -> list[bytes]:
            return [part for scope, clock in later.items() for part in (scope.encode(), b"%d" % clock)]

    await resync(Replaced(), freshness, "ledger", 600, 100)  # type: ignore[arg-type] # as far as it is asked
    assert freshness.verdict(500, ["k:a"]) is Verdict.INVALID
    assert freshness.verdict(500, ["k:b"]) is (Verdict.VALID if start == 100 else Verdict.ASK)


async def heard(view: View[..., int]) -> None:
    """Wait until the process of *view* follows the journal."""
    cache = view._cache
    await until(lambda: cache.reader is not None and cache.reader.freshness.heard_at > 0, "the journal")
