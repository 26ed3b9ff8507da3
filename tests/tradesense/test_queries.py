"""What the views load: complete, the same from both databases, and as new as the last commit."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest
from sqlalchemy import text

from tests.support import independent
from tests.tradesense.conftest import BOTH, TRADES, USERS, World
from tradesense import queries
from tradesense.database import database
from tradesense.market import INSTRUMENTS
from tradesense.recording import record_trade
from tradesense.results import CostBasis, Grouping

Loader = Callable[[], Awaitable[Any]]

LOADERS: dict[str, Loader] = {
    "portfolio, first in first out": lambda: queries.portfolio_summary(1, CostBasis.FIFO),
    "portfolio, average cost": lambda: queries.portfolio_summary(2, CostBasis.AVERAGE),
    "analytics": lambda: queries.trade_analytics(1, CostBasis.FIFO, "Asia/Tokyo", Grouping.WEEK),
    "risk": lambda: queries.risk_of(3, 0.02),
    "market data": lambda: queries.market_data("GOOG"),
    "profile": lambda: queries.user_profile(4),
    "settings": lambda: queries.user_settings(5),
    "statistics": queries.statistics,
    "reference data": queries.reference_data,
}


@pytest.mark.xdist_group("postgresql")
@pytest.mark.parametrize("what", LOADERS)
async def test_both_databases_say_the_same(
    what: str, world: World, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every loader returns the same value, to the last digit and of the same types, from SQLite and PostgreSQL."""
    from_sqlite = await LOADERS[what]()
    await database.close()
    monkeypatch.setenv("DATABASE_URL", postgres_url)
    from_postgresql = await LOADERS[what]()
    assert from_postgresql == from_sqlite
    assert msgspec.json.encode(from_postgresql) == msgspec.json.encode(from_sqlite)


@pytest.mark.parametrize("what", LOADERS)
async def test_a_value_comes_back_from_bytes_as_it_was(what: str, world: World) -> None:
    """Encoded as a cache does and decoded to its type, it is equal; a time keeps its zone, a number its digits."""
    value = await LOADERS[what]()
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(value), type=type(value)) == value


async def test_statistics_are_sums_over_everybody(world: World) -> None:
    """Trades, traders, shares and dollars by symbol, as pandas counts them."""
    trades = independent.read(world.url).trades
    expected = trades.assign(turnover=trades.quantity * trades.price_cents).groupby("symbol")
    found = await queries.statistics()
    assert (found.users, found.trades) == (USERS, TRADES)
    assert [symbol.symbol for symbol in found.symbols] == sorted(INSTRUMENTS)
    assert [symbol.trades for symbol in found.symbols] == expected.size().to_list()
    assert [symbol.traders for symbol in found.symbols] == expected.user_id.nunique().to_list()
    assert [symbol.volume for symbol in found.symbols] == expected.quantity.sum().to_list()
    assert [symbol.turnover_cents for symbol in found.symbols] == expected.turnover.sum().to_list()


async def test_reference_data_name_what_can_be_traded(world: World) -> None:
    """Five instruments with their names and the range of their bars."""
    bars = independent.read(world.url).bars.groupby("symbol").day.agg(["min", "max", "count"])
    found = (await queries.reference_data()).instruments
    assert [(i.symbol, i.name) for i in found] == sorted((symbol, name) for symbol, (name, _) in INSTRUMENTS.items())
    assert [i.first_day for i in found] == [stamp.date() for stamp in bars["min"]]
    assert [i.last_day for i in found] == [stamp.date() for stamp in bars["max"]]
    assert [i.bars for i in found] == bars["count"].to_list()


@pytest.mark.parametrize("world_url", BOTH, indirect=True)
async def test_a_load_sees_what_was_committed_before_it(world: World) -> None:
    """A trade that was recorded is in the next load of everything that trades shape."""
    before = await queries.portfolio_summary(7, CostBasis.FIFO)
    held = {position.symbol: position.quantity for position in before.positions}
    await record_trade(7, "FB", "buy", 3, "27.00")
    after = await queries.portfolio_summary(7, CostBasis.FIFO)
    assert {p.symbol: p.quantity for p in after.positions} == {**held, "FB": held.get("FB", 0) + 3}
    assert (await queries.trade_analytics(7, CostBasis.FIFO, "UTC", Grouping.DAY)).trades == before.trades + 1
    assert (await queries.user_profile(7)).trades == before.trades + 1
    assert (await queries.statistics()).trades == TRADES + 1
    assert (await queries.risk_of(7, 0.0)).equity[-1].value_cents == pytest.approx(after.value_cents, abs=5)


@pytest.mark.parametrize("what", LOADERS)
async def test_a_load_does_not_wait_for_a_writer(what: str, world: World) -> None:
    """While a transaction has the write lock, every loader answers with what was committed before it."""
    before = await LOADERS[what]()
    async with world.db.writing() as writer:
        await writer.execute(text("DELETE FROM trades"))
        assert await asyncio.wait_for(LOADERS[what](), 20) == before


@pytest.mark.parametrize("world_url", BOTH, indirect=True)
async def test_who_is_not_there_is_said_to_be_missing(world: World) -> None:
    """An unknown user or symbol raises NotFound naming the field; one without trades has empty figures."""
    for load in (queries.user_profile, queries.user_settings):
        with pytest.raises(queries.NotFound, match="user_id: 9999999999 does not exist"):
            await load(9_999_999_999)
    with pytest.raises(queries.NotFound, match="symbol: 'NOPE' is not traded here"):
        await queries.market_data("NOPE")
    nobody = await queries.portfolio_summary(9_999_999_999, CostBasis.FIFO)
    assert (nobody.trades, nobody.positions, nobody.value_cents) == (0, (), 0)
    assert (await queries.risk_of(9_999_999_999, 0.0)).days == 0
