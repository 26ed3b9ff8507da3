"""Positions and profit, beside an independent calculation on the same rows."""

from __future__ import annotations

import datetime

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support import independent
from tests.tradesense.conftest import USERS, World
from tradesense import performance, queries
from tradesense.results import CostBasis, Grouping, Side, Trade

NOON = datetime.datetime(2012, 6, 1, 16, tzinfo=datetime.UTC)
CENT = 0.01
OF_BASIS = {CostBasis.FIFO: independent.fifo_profits, CostBasis.AVERAGE: independent.average_profits}


def trade(side: str, quantity: int, price: str, *, fee: int = 100, hours: int = 0, symbol: str = "IBM") -> Trade:
    """A trade some hours after noon; the price as people write it, the fee in cents."""
    cents = round(float(price) * 100)
    return Trade(hours, symbol, Side(side), quantity, cents, fee, NOON + datetime.timedelta(hours=hours))


def frame(trades: list[Trade]) -> pd.DataFrame:
    """The same trades for the independent calculation."""
    columns = ["id", "symbol", "side", "quantity", "price_cents", "fee_cents", "at"]
    return independent.with_amounts(
        pd.DataFrame([[getattr(t, name) for name in columns] for t in trades], columns=columns)
    )


one_trade = st.builds(
    Trade,
    id=st.just(1),
    symbol=st.sampled_from(["IBM", "AAPL"]),
    side=st.sampled_from(Side),
    quantity=st.integers(1, 60),
    price_cents=st.integers(1, 100_000),
    fee_cents=st.integers(0, 500),
    at=st.just(NOON),
)
some_trades = st.lists(one_trade, min_size=1, max_size=25)
bases = st.sampled_from(CostBasis)
untimed = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""A busy machine is no reason to fail."""


def test_first_in_first_out_sells_the_oldest_shares() -> None:
    """Bought 10 at 100 and 10 at 120, sold 15 at 130, a dollar a trade: 15 x 130 - 1 - (1,001 + 5 x 120.10)."""
    trades = [trade("buy", 10, "100"), trade("buy", 10, "120", hours=1), trade("sell", 15, "130", hours=2)]
    summary = performance.summarize(1, trades, {"IBM": 140.0}, CostBasis.FIFO)
    assert summary.realized_cents == 194_900 - 100_100 - 60_050
    (position,) = summary.positions
    assert (position.quantity, position.cost_cents, position.value_cents) == (5, 60_050, 70_000)


def test_average_cost_sells_a_share_of_everything() -> None:
    """The same trades: 15 of 20 shares that cost 2,202 altogether."""
    trades = [trade("buy", 10, "100"), trade("buy", 10, "120", hours=1), trade("sell", 15, "130", hours=2)]
    summary = performance.summarize(1, trades, {"IBM": 140.0}, CostBasis.AVERAGE)
    assert summary.realized_cents == 194_900 - 165_150
    assert summary.positions[0].cost_cents == 55_050


def test_a_sale_of_more_than_is_held_is_a_short_position() -> None:
    """Sold 10 of 4 held: the rest is owed, gains when the price falls, and a purchase closes it."""
    trades = [trade("buy", 4, "50", fee=0), trade("sell", 10, "60", fee=0, hours=1)]
    short = performance.summarize(1, trades, {"IBM": 55.0}, CostBasis.FIFO)
    assert short.realized_cents == 4 * 1000
    (position,) = short.positions
    assert (position.quantity, position.cost_cents, position.unrealized_cents) == (-6, -36_000, 6 * 500)
    covered = performance.summarize(1, [*trades, trade("buy", 6, "70", fee=0, hours=2)], {"IBM": 55.0}, CostBasis.FIFO)
    assert (covered.positions, covered.realized_cents) == ((), 4 * 1000 - 6 * 1000)


@untimed
@given(some_trades, bases)
def test_profit_is_what_pairs_of_shares_earned(trades: list[Trade], basis: CostBasis) -> None:
    """Every closed trade's profit is the independent one, long and short, up to the cents of its roundings."""
    _, closed = performance.replay(trades, basis)
    expected = OF_BASIS[basis](frame(trades))
    assert len(closed) == len(expected)
    assert [done.profit_cents / 100 for done in closed] == pytest.approx(list(expected), abs=len(trades) * CENT)


@untimed
@given(some_trades, bases)
def test_no_cent_is_made_or_lost(trades: list[Trade], basis: CostBasis) -> None:
    """Realized plus unrealized is what is held minus all cash paid, to the cent, whatever the basis."""
    summary = performance.summarize(1, trades, {"IBM": 123.45, "AAPL": 67.89}, basis)
    paid = sum((1 if t.side is Side.BUY else -1) * t.quantity * t.price_cents + t.fee_cents for t in trades)
    assert summary.realized_cents + summary.unrealized_cents == summary.value_cents - paid


def test_half_cents_go_to_the_even_neighbour() -> None:
    """A third of 100 is 33, half of 5 is 2, half of 7 is 4; below zero it is the mirror image."""
    assert [performance.part(*piece) for piece in ((100, 1, 3), (5, 1, 2), (7, 1, 2), (-7, 1, 2))] == [33, 2, 4, -4]


async def test_every_seeded_user_holds_what_the_rows_say(world: World) -> None:
    """Shares by symbol, and their worth at the last close, for everybody in the database."""
    rows = independent.read(world.url)
    last = rows.bars.sort_values("day").groupby("symbol").close.last()
    for user in range(1, USERS + 1):
        summary = await queries.portfolio_summary(user, CostBasis.FIFO)
        held = independent.positions(rows.trades[rows.trades.user_id == user])
        assert {p.symbol: p.quantity for p in summary.positions} == held.to_dict()
        for position in summary.positions:
            worth = held[position.symbol] * last[position.symbol]
            assert position.value_cents / 100 == pytest.approx(worth, abs=CENT)


@pytest.mark.parametrize("basis", CostBasis)
async def test_every_seeded_users_profit_is_the_independent_one(world: World, basis: CostBasis) -> None:
    """Realized profit, closed trades, win rate, profit factor, best and worst, for everybody in the database."""
    rows = independent.read(world.url)
    for user in range(1, USERS + 1):
        mine = rows.trades[rows.trades.user_id == user]
        profits = OF_BASIS[basis](mine)
        wins, losses = profits[profits > 0], profits[profits < 0]
        found = await queries.trade_analytics(user, basis, "UTC", Grouping.DAY)
        slack = len(mine) * CENT
        assert (found.trades, found.closed) == (len(mine), len(profits))
        assert found.realized_cents / 100 == pytest.approx(profits.sum(), abs=slack)
        assert found.fees_cents == mine.fee_cents.sum()
        assert found.win_rate == pytest.approx((profits > 0).mean())
        assert found.profit_factor == pytest.approx(wins.sum() / -losses.sum(), rel=1e-4)
        assert found.average_win_cents / 100 == pytest.approx(wins.mean(), abs=slack)
        assert found.average_loss_cents / 100 == pytest.approx(losses.mean(), abs=slack)
        assert found.best_cents / 100 == pytest.approx(profits.max(), abs=slack)
        assert found.worst_cents / 100 == pytest.approx(profits.min(), abs=slack)


@pytest.mark.parametrize(("grouping", "offset"), [("day", "D"), ("week", "W-MON"), ("month", "MS")])
@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Tokyo"])
async def test_periods_are_those_of_the_users_calendar(world: World, zone: str, grouping: str, offset: str) -> None:
    """Profit by day, week from Monday and month, where the user lives, as pandas groups it."""
    rows = independent.read(world.url)
    mine = rows.trades[rows.trades.user_id == 1]
    profits = independent.fifo_profits(mine)
    local = mine.loc[profits.index, "at"].dt.tz_convert(zone).dt.tz_localize(None).dt.normalize()
    bins = pd.Grouper(freq=offset, closed="left", label="left")
    expected = profits.set_axis(pd.DatetimeIndex(local)).groupby(bins).agg(["sum", "count"])
    expected = expected[expected["count"] > 0]
    found = await queries.trade_analytics(1, CostBasis.FIFO, zone, Grouping(grouping))
    assert [period.begins for period in found.periods] == [stamp.date() for stamp in expected.index]
    assert [period.trades for period in found.periods] == expected["count"].to_list()
    dollars = [period.realized_cents / 100 for period in found.periods]
    assert dollars == pytest.approx(expected["sum"].to_list(), abs=len(mine) * CENT)


def test_the_time_zone_decides_which_day_a_trade_belongs_to() -> None:
    """Half past four in New York on New Year's Eve is next year in Tokyo: day, week and month differ."""
    eve = datetime.datetime(2012, 12, 31, 20, 30, tzinfo=datetime.UTC)
    trades = [trade("buy", 1, "100"), Trade(2, "IBM", Side.SELL, 1, 11_000, 100, eve)]

    def begins(zone: str, grouping: Grouping) -> datetime.date:
        return performance.analyze(1, trades, CostBasis.FIFO, zone, grouping).periods[0].begins

    assert begins("America/New_York", Grouping.DAY) == datetime.date(2012, 12, 31)
    assert begins("Asia/Tokyo", Grouping.DAY) == datetime.date(2013, 1, 1)
    assert begins("America/New_York", Grouping.MONTH) == datetime.date(2012, 12, 1)
    assert begins("Asia/Tokyo", Grouping.MONTH) == datetime.date(2013, 1, 1)
    assert begins("Asia/Tokyo", Grouping.WEEK) == datetime.date(2012, 12, 31)


def test_without_a_loss_there_is_no_profit_factor() -> None:
    """Nothing closed, or nothing lost: None instead of infinity, and rates of zero."""
    open_only = performance.analyze(1, [trade("buy", 1, "100")], CostBasis.FIFO, "UTC", Grouping.DAY)
    assert (open_only.closed, open_only.win_rate, open_only.profit_factor, open_only.periods) == (0, 0.0, None, ())
    only_won = [trade("buy", 1, "100"), trade("sell", 1, "200", hours=1)]
    won = performance.analyze(1, only_won, CostBasis.FIFO, "UTC", Grouping.DAY)
    assert (won.win_rate, won.profit_factor) == (1.0, None)
