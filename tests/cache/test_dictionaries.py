"""A view with a dictionary: small, similar values take less room in Redis, and nothing depends on it being there."""

from __future__ import annotations

import asyncio
import itertools
import random
from functools import cache

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachebus import Cache, View, dictionaries
from cachebus.dictionary import Dictionary, train
from cachebus.entry import Encoding, Header, pack, unpack
from cachebus.inspection import copies
from cachebus.private_server import PrivateServer
from tests.conftest import Connect
from tests.waiting import until

SYMBOLS = ("AAPL", "MSFT", "GOOG", "AMZN")


class Position(msgspec.Struct, frozen=True):
    symbol: str
    quantity: int
    average_price: float
    market_value: float


class Summary(msgspec.Struct, frozen=True):
    user_id: int
    currency: str
    positions: tuple[Position, ...]


def summary(user_id: int) -> Summary:
    """Return a small value like all others, and different from each."""
    draw = random.Random(user_id)  # noqa: S311 - values that can be had again
    positions = [
        Position(draw.choice(SYMBOLS), draw.randrange(500), round(draw.uniform(1, 400), 2), round(draw.random(), 2))
        for _ in range(4)
    ]
    return Summary(user_id, "USD", tuple(positions))


def summaries(cache: Cache, *, dictionary: bool = True) -> View[..., Summary]:
    """Return a view of them."""

    @cache.view("summary:{user_id}", ttl="1h", dictionary=dictionary)
    async def view(user_id: int) -> Summary:
        return summary(user_id)

    return view


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Train with less, look at each turn."""
    monkeypatch.setattr(dictionaries, "SAMPLES", 200)
    monkeypatch.setattr(dictionaries, "PAUSE_S", 0.0)
    monkeypatch.setattr(dictionaries, "LOOK_S", 0.0)


class Place:
    """What lies in Redis."""

    def __init__(self, server: PrivateServer, namespace: str) -> None:
        self._server = server
        self._namespace = namespace

    def size(self, user_id: int) -> int:
        """Return how many bytes a user's entry has."""
        (name,) = self._server.ask("KEYS", f"{self._namespace}:e:{{summary:{user_id}}}:*")
        return int(self._server.ask("STRLEN", name))

    def dictionary(self) -> bytes:
        """Return the key of the dictionary, b"" where there is none."""
        keys: list[bytes] = self._server.ask("KEYS", f"{self._namespace}:dictionary:*")
        return keys[0] if keys else b""


@pytest.fixture
def place(server: PrivateServer, namespace: str) -> Place:
    """Return what lies in Redis."""
    return Place(server, namespace)


async def trained(view: View[..., Summary], place: Place, first: int = 1000) -> None:
    """Store values until those of this process get smaller. They are those of users from *first* on."""
    users = itertools.count(first + 1)
    await view(first)
    large = place.size(first)

    await asyncio.gather(*[view(next(users)) for _ in range(210)])

    async def smaller() -> bool:
        user_id = next(users)
        await view(user_id)
        return place.size(user_id) < 0.6 * large

    await until(smaller, "smaller entries")


async def test_values_take_less_room_and_are_read_by_everyone(connect: Connect, place: Place) -> None:
    """A process that began later loads what it cannot read yet, fetches the dictionary meanwhile, and reads then."""
    here = summaries(await connect())
    await trained(here, place)
    assert [await here(1), await here(2)] == [summary(1), summary(2)]
    there = summaries(await connect(max_memory_entries=0))
    assert await there(1) == summary(1)
    assert there.stats.loads == 1
    await trained(there, place)
    loads = there.stats.loads
    assert await there(2) == summary(2)
    assert there.stats.loads == loads


async def test_a_dictionary_that_is_lost_costs_loads_and_is_put_back(
    connect: Connect, server: PrivateServer, place: Place
) -> None:
    """Evicted or deleted: who does not have it loads; who has it puts it back."""
    here, there = summaries(await connect()), summaries(await connect())
    await trained(here, place)
    await here(1)
    server.ask("DEL", place.dictionary())
    assert await there(1) == summary(1)
    assert there.stats.loads == 1
    await here(2)
    await until(place.dictionary, "the dictionary")
    await trained(there, place)


async def test_a_damaged_dictionary_is_never_used(connect: Connect, server: PrivateServer, place: Place) -> None:
    """One flipped byte would inflate to other values: it is deleted, and put back by who has it whole."""
    here, there = summaries(await connect()), summaries(await connect(max_memory_entries=0))
    await trained(here, place)
    await here(1)
    key = place.dictionary()
    whole = server.ask("GET", key)
    server.ask("SETRANGE", key, 3000, bytes([whole[3000] ^ 1]))
    for _ in range(3):
        assert await there(1) == summary(1)
    await until(lambda: not place.dictionary(), "its deletion")
    await here(2)
    await until(lambda: place.dictionary() and server.ask("GET", key) == whole, "the whole one")


async def test_processes_that_train_at_the_same_time_agree(
    connect: Connect, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first to say so wins; what one stores the other reads."""
    monkeypatch.setattr(dictionaries, "LOOK_S", 3600.0)
    here, there = [summaries(await connect(max_memory_entries=0)) for _ in range(2)]
    await asyncio.gather(trained(here, place), trained(there, place, 500_000))
    await here(1)
    loads = there.stats.loads
    assert await there(1) == summary(1)
    assert there.stats.loads == loads


async def test_a_process_with_an_old_dictionary_takes_the_new_one(
    connect: Connect, server: PrivateServer, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lost, and trained anew by another: the first entry that tells of it is a miss, those after it are not."""
    here = summaries(await connect(max_memory_entries=0))
    await trained(here, place)
    monkeypatch.setattr(dictionaries, "LOOK_S", 3600.0)
    await here(1)  # its look is the last for an hour
    server.ask("DEL", place.dictionary())
    there = summaries(await connect())
    await trained(there, place)
    await there(2)
    users = itertools.count(500_000)

    async def read_from_redis() -> bool:
        user_id = next(users)
        await there(user_id)
        loads = here.stats.loads
        assert await here(user_id) == summary(user_id)
        return here.stats.loads == loads

    await until(read_from_redis, "the new dictionary here")


async def test_a_view_without_one_stores_as_before(connect: Connect, place: Place) -> None:
    """However alike its values are."""
    view = summaries(await connect(), dictionary=False)
    await view(1)
    await asyncio.gather(*[view(user_id) for user_id in range(1000, 1300)])
    await view(2)
    assert not place.dictionary()
    assert place.size(2) == pytest.approx(place.size(1), rel=0.1)


async def test_whoever_looks_into_an_entry_sees_its_value(connect: Connect, place: Place) -> None:
    """`inspect` reads entries made with a dictionary too."""
    cache = await connect()
    view = summaries(cache)
    await trained(view, place)
    await view(1)
    (copy,) = await copies(cache, "summary:1")
    assert msgspec.convert(copy.value, Summary) == summary(1)


SAMPLES = [msgspec.msgpack.encode(summary(user_id)) for user_id in range(400)]


def test_values_with_nothing_in_common_get_none() -> None:
    """It would cost time and save nothing."""
    draw = random.Random(1)  # noqa: S311 - bytes that can be had again
    assert train([draw.randbytes(200) for _ in range(400)]) is None
    assert train([b"x" * 20] * 10) is None
    assert train(SAMPLES) is not None


@given(st.binary(max_size=5000), st.integers(0, 10**6), st.integers(1, 255))
def test_every_value_comes_back_equal_and_damage_is_a_miss(payload: bytes, at: int, flip: int) -> None:
    """Whatever it was trained of; a damaged entry never raises, and one of another dictionary is none."""
    dictionary = trained_once()
    data = pack(payload, 1, Header(1000, 0, 1.0), "value", dictionary.compress)
    entry = unpack(data, dictionary.inflate)
    assert entry is not None
    assert entry.payload == payload
    assert (unpack(data) is None) == (entry.header.encoding == Encoding.DICTIONARY)
    damaged = bytearray(data)
    damaged[at % len(data)] ^= flip
    unpack(bytes(damaged), dictionary.inflate)


@cache
def trained_once() -> Dictionary:
    """Return a dictionary of summaries."""
    dictionary = train(SAMPLES)
    assert dictionary is not None
    return Dictionary.opened(dictionary.sealed())
