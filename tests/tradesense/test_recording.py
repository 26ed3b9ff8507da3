"""What applications write: whole or not at all, and every refusal names the field and what it may be."""

from __future__ import annotations

import datetime
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from sqlalchemy import select
from sqlalchemy.exc import DBAPIError

from tests.tradesense.conftest import BOTH, TRADES, World
from tradesense import queries, recording
from tradesense.events import SettingsEvent, TradeEvent
from tradesense.market import INSTRUMENTS
from tradesense.recording import Order
from tradesense.results import Bar, Side
from tradesense.tables import outbox

on_both = pytest.mark.parametrize("world_url", BOTH, indirect=True)

AT = datetime.datetime(2012, 6, 1, 15, tzinfo=datetime.timezone(datetime.timedelta(hours=-4)))
BAR = Bar(datetime.date(2013, 3, 4), 430.0, 436.5, 427.75, 431.25, 1_000)


@on_both
async def test_a_trade_is_recorded_as_it_was_said(world: World) -> None:
    """Cents are exact, the instant is kept, fees default to a dollar; the id is the row's."""
    trade_id = await recording.record_trade(7, "AAPL", "sell", 3, Decimal("560.99"), at=AT)
    (trade,) = [trade for trade in await queries.trades_of(7) if trade.id == trade_id]
    assert (trade.symbol, trade.side, trade.quantity) == ("AAPL", Side.SELL, 3)
    assert (trade.price_cents, trade.fee_cents) == (56_099, 100)
    assert trade.at == AT
    assert trade.at.utcoffset() == datetime.timedelta(0)


@pytest.mark.parametrize("price", ["19.99", 19.99, Decimal("19.99"), Decimal("19.9900")])
async def test_a_price_is_what_people_write(world: World, price: recording.Dollars) -> None:
    """Text, a float and a Decimal mean the same cents."""
    trade_id = await recording.record_trade(7, "FB", "buy", 1, price)
    assert [trade.price_cents for trade in await queries.trades_of(7) if trade.id == trade_id] == [1_999]


@on_both
async def test_a_trade_without_a_time_was_made_now(world: World) -> None:
    """Between the moment before the call and the one after it."""
    before = datetime.datetime.now(datetime.UTC)
    await recording.record_trade(7, "IBM", "buy", 1, "200")
    assert before <= (await queries.trades_of(7))[-1].at <= datetime.datetime.now(datetime.UTC)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"side": "hold"}, "side: 'hold' is neither 'buy' nor 'sell'"),
        ({"quantity": 0}, "quantity: 0 is not a whole number from 1 to 1,000,000"),
        ({"quantity": 1.5}, "quantity: 1.5 is not a whole number"),
        ({"quantity": True}, "quantity: True is not a whole number"),
        ({"price": "cheap"}, "price: 'cheap' is not an amount; write dollars such as '430.25'"),
        ({"price": "NaN"}, "price: 'NaN' is not an amount"),
        ({"price": float("inf")}, "price: inf is not an amount"),
        ({"price": "0.001"}, "price: 0.001 has fractions of a cent; give two decimals"),
        ({"price": 0}, "price: 0 must be from 0.01 to 1,000,000"),
        ({"price": "-5"}, "price: -5 must be from 0.01"),
        ({"price": "1e9"}, "price: 1e9 must be from 0.01 to 1,000,000"),
        ({"fee": "-1"}, "fee: -1 must be from 0.00"),
        ({"at": datetime.datetime(2012, 6, 1)}, "at: 2012-06-01 00:00:00 has no time zone"),
        ({"at": datetime.datetime(2001, 6, 1, tzinfo=datetime.UTC)}, "at: .* lies before 2005-03-01"),
        ({"at": datetime.datetime(1, 1, 1, tzinfo=datetime.UTC)}, "at: .* lies before 2005-03-01"),
        ({"at": datetime.datetime(2999, 1, 1, tzinfo=datetime.UTC)}, "at: .* lies in the future"),
    ],
)
async def test_a_trade_that_cannot_be_is_refused(world: World, change: dict[str, Any], said: str) -> None:
    """Nothing was recorded, and the error says which field and why."""
    trade = {"user_id": 7, "symbol": "IBM", "side": "buy", "quantity": 1, "price": "200", **change}
    with pytest.raises(ValueError, match=f"^{said}"):
        await recording.record_trade(**trade)
    assert (await queries.statistics()).trades == TRADES


@on_both
async def test_who_or_what_does_not_exist_is_named(world: World) -> None:
    """A user, however large the number, and a symbol; nothing was recorded."""
    for user in (999, 9_999_999_999):
        with pytest.raises(ValueError, match=f"^user_id: {user} does not exist"):
            await recording.record_trade(user, "IBM", "buy", 1, "200")
        with pytest.raises(ValueError, match=f"^user_id: {user} does not exist"):
            await recording.change_settings(user, theme="dark")
    with pytest.raises(ValueError, match="symbol: 'NOPE' does not exist"):
        await recording.record_trade(7, "NOPE", "buy", 1, "200")
    with pytest.raises(ValueError, match="symbol: 'NOPE' does not exist"):
        await recording.append_bar("NOPE", BAR)
    assert (await queries.statistics()).trades == TRADES


@on_both
async def test_an_import_is_recorded_in_order(world: World) -> None:
    """The ids stand in the order of the orders."""
    before = await recording.count_trades(7)
    ids = await recording.import_trades(7, [Order("IBM", "buy", count, "200") for count in range(1, 51)])
    quantities = {trade.id: trade.quantity for trade in await queries.trades_of(7)}
    assert [quantities[trade_id] for trade_id in ids] == list(range(1, 51))
    assert await recording.count_trades(7) == before + 50


@on_both
@pytest.mark.parametrize("bad", [Order("NOPE", "buy", 1, "200"), Order("IBM", "buy", 0, "200")])
async def test_an_import_with_one_bad_order_records_none(world: World, bad: Order) -> None:
    """All or nothing; an empty import is refused too."""
    with pytest.raises(ValueError, match=r"^(symbol|quantity): "):
        await recording.import_trades(7, [Order("IBM", "buy", 1, "200"), bad])
    with pytest.raises(ValueError, match=r"^orders: nothing to import"):
        await recording.import_trades(7, [])
    assert (await queries.statistics()).trades == TRADES


@on_both
async def test_a_trade_is_corrected_and_deleted(world: World) -> None:
    """What was given changes, the rest stays; a trade that is not there is not an error, but said."""
    trade_id = await recording.record_trade(7, "IBM", "buy", 1, "200", at=AT)
    assert await recording.correct_trade(trade_id, quantity=5)
    assert await recording.correct_trade(trade_id, price="201.50")
    (trade,) = [trade for trade in await queries.trades_of(7) if trade.id == trade_id]
    assert (trade.quantity, trade.price_cents, trade.at) == (5, 20_150, AT)
    assert await recording.delete_trade(trade_id)
    assert not await recording.delete_trade(trade_id)
    assert not await recording.correct_trade(trade_id, quantity=1)
    with pytest.raises(ValueError, match=r"^quantity, price: nothing to correct"):
        await recording.correct_trade(1)
    with pytest.raises(ValueError, match=r"^quantity: -1 is not"):
        await recording.correct_trade(1, quantity=-1)


async def announced(world: World) -> list[tuple[str, str | None, TradeEvent]]:
    """What waits in the outbox: channel, key and event."""
    async with world.db.reading() as connection:
        rows = await connection.execute(select(outbox.table).order_by(outbox.table.c.seq))
        return [(row.channel, row.key, msgspec.json.decode(row.payload, type=TradeEvent)) for row in rows]


@on_both
async def test_what_is_announced_is_committed_with_its_event(world: World) -> None:
    """Each change leaves one event in the outbox, in order; what is not announced leaves none."""
    await recording.record_trade(7, "IBM", "buy", 1, "200")
    assert await announced(world) == []
    trade_id = await recording.record_trade(7, "IBM", "buy", 1, "200", announce=True)
    await recording.import_trades(8, [Order("IBM", "buy", 1, "200")] * 2, announce=True)
    await recording.correct_trade(trade_id, quantity=5, announce=True)
    await recording.delete_trade(trade_id, announce=True)
    assert await announced(world) == [
        ("trade:updates", "user:7", TradeEvent(7, "new_trade", trade_id, "IBM")),
        ("trade:updates", "user:8", TradeEvent(8, "import_completed")),
        ("trade:updates", "user:7", TradeEvent(7, "updated_trade", trade_id, "IBM")),
        ("trade:updates", "user:7", TradeEvent(7, "deleted_trade", trade_id, "IBM")),
    ]


@on_both
async def test_an_event_of_a_given_id_may_be_published_as_well(world: World) -> None:
    """A change of settings and an import carry the id that their caller publishes under."""
    await recording.change_settings(7, grouping="day", theme="dark", announce="one")
    await recording.import_trades(8, [Order("IBM", "buy", 1, "200")], once="file", announce="two")
    async with world.db.reading() as connection:
        rows = (await connection.execute(select(outbox.table).order_by(outbox.table.c.seq))).all()
    assert [(row.id, row.channel, row.key) for row in rows] == [
        ("one", "settings:updates", "user:7"),
        ("two", "trade:updates", "user:8"),
    ]
    assert msgspec.json.decode(rows[0].payload, type=SettingsEvent).changed == ("grouping", "theme")


@on_both
async def test_what_does_not_happen_is_not_announced(world: World) -> None:
    """A trade that is refused, or that is not there, leaves no event; an event that cannot be written, no trade."""
    with pytest.raises(ValueError, match="NOPE"):
        await recording.record_trade(7, "NOPE", "buy", 1, "200", announce=True)
    assert not await recording.delete_trade(999_999_999, announce=True)
    assert not await recording.correct_trade(999_999_999, quantity=1, announce=True)
    assert await announced(world) == []
    async with world.db.writing() as connection:
        await connection.run_sync(outbox.table.drop)
    with pytest.raises(DBAPIError, match="cachebus_outbox"):
        await recording.record_trade(7, "IBM", "buy", 1, "200", announce=True)
    assert (await queries.statistics()).trades == TRADES


@on_both
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("time_zone", "Asia/Kolkata"),
        ("grouping", "week"),
        ("cost_basis", "average"),
        ("risk_free_rate", 0.045),
        ("theme", "dark"),
    ],
)
async def test_a_setting_is_changed_and_the_others_stay(world: World, name: str, value: Any) -> None:
    """One row of one user, one column of it."""
    before, other = await queries.user_settings(7), await queries.user_settings(8)
    await recording.change_settings(7, **{name: value})
    assert await queries.user_settings(7) == msgspec.convert(
        {**msgspec.to_builtins(before), name: value}, type=type(before)
    )
    assert await queries.user_settings(8) == other


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"time_zone": "Mars/Olympus"},
            "time_zone: 'Mars/Olympus' is not an IANA time zone such as 'Europe/Berlin'",
        ),
        ({"grouping": "year"}, "grouping: 'year' is not one of day, week, month"),
        ({"cost_basis": "lifo"}, "cost_basis: 'lifo' is not one of fifo, average"),
        ({"risk_free_rate": 2}, "risk_free_rate: 2 is not a yearly fraction"),
        ({"risk_free_rate": "2 %"}, "risk_free_rate: '2 %' is not a yearly fraction"),
        ({"risk_free_rate": float("nan")}, "risk_free_rate: nan is not a yearly fraction"),
        ({"theme": "blue"}, "theme: 'blue' is not one of light, dark"),
        ({"colour": "blue"}, "colour: not a setting; there are time_zone, grouping"),
    ],
)
async def test_a_setting_that_cannot_be_is_refused(world: World, changes: dict[str, Any], said: str) -> None:
    """The error names the setting and what it may be, and a good setting beside it is not changed either."""
    before = await queries.user_settings(7)
    with pytest.raises(ValueError, match=f"^{said}"):
        await recording.change_settings(7, **{"risk_free_rate": 0.99, **changes})
    assert await queries.user_settings(7) == before


async def test_a_change_of_nothing_is_refused(world: World) -> None:
    """The error lists the settings there are."""
    with pytest.raises(ValueError, match="changes: name a setting; there are time_zone, grouping"):
        await recording.change_settings(7)


@on_both
async def test_a_bar_is_appended_and_corrected(world: World) -> None:
    """The day's bar is the last of the market data; saying it again replaces it."""
    bars = (await queries.reference_data()).instruments[0].bars
    for bar in (BAR, msgspec.structs.replace(BAR, close=428.0)):
        await recording.append_bar("AAPL", bar)
        assert (await queries.market_data("AAPL")).bars[-1] == bar
    assert (await queries.reference_data()).instruments[0].bars == bars + 1
    assert (await queries.last_closes())["AAPL"] == 428.0
    assert set(await queries.last_closes()) == set(INSTRUMENTS)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"low": 431.0}, "low, high: 431.0 to 436.5 must be above 0 and enclose open 430.0 and close 431.25"),
        ({"high": 431.0}, "low, high: 427.75 to 431.0"),
        ({"low": 0.0}, "low, high: 0.0 to"),
        ({"close": float("nan")}, "low, high: .* close nan"),
        ({"high": float("inf")}, "low, high: 427.75 to inf"),
        ({"volume": -1}, "volume: -1 must be 0 or more"),
    ],
)
async def test_a_bar_that_cannot_be_is_refused(world: World, change: dict[str, Any], said: str) -> None:
    """The error says which prices do not go together."""
    before = await queries.last_closes()
    with pytest.raises(ValueError, match=f"^{said}"):
        await recording.append_bar("AAPL", msgspec.structs.replace(BAR, **change))
    assert await queries.last_closes() == before
