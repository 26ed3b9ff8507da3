"""The equity curve and its risk figures, beside an independent calculation on the same rows."""

from __future__ import annotations

import datetime

import numpy as np
import pytest

from tests.support import independent
from tests.tradesense.conftest import USERS, World
from tradesense import queries, risk
from tradesense.recording import Order, import_trades
from tradesense.results import CostBasis, Side, Trade

CENT = 0.01
MONDAY = datetime.date(2012, 6, 4)


def trade(day: int, side: Side, quantity: int, cents: int) -> Trade:
    """A trade so many days after Monday, while the exchange is open; no fee."""
    at = datetime.datetime.combine(MONDAY + datetime.timedelta(days=day), datetime.time(15), datetime.UTC)
    return Trade(day, "IBM", side, quantity, cents, 0, at)


def closes(*prices: float) -> dict[datetime.date, dict[str, float]]:
    """Closes of IBM from Monday on."""
    return {MONDAY + datetime.timedelta(days=i): {"IBM": price} for i, price in enumerate(prices)}


async def check(user: int, rows: independent.World) -> None:
    """Compare one user's figures with the independent ones."""
    mine = rows.trades[rows.trades.user_id == user].reset_index(drop=True)
    expected = independent.curve(mine, rows.bars)
    found = await queries.risk_of(user, 0.02)
    assert found.days == len(expected.value)
    assert found.volatility == pytest.approx(independent.volatility(expected.returns))
    assert found.sharpe == pytest.approx(independent.sharpe(expected.returns, 0.02))
    assert found.max_drawdown == pytest.approx(independent.drawdown(expected.returns))
    profit = np.concatenate([[0.0], expected.profit.to_numpy()])
    fall = (np.maximum.accumulate(profit) - profit).max()
    assert found.max_drawdown_cents / 100 == pytest.approx(fall, abs=CENT)
    months = expected.profit.groupby(expected.profit.index.to_period("M")).tail(1)
    assert [point.day for point in found.equity] == [stamp.date() for stamp in months.index]
    assert [point.profit_cents / 100 for point in found.equity] == pytest.approx(months.to_list(), abs=CENT)
    worth = expected.value.loc[months.index].to_list()
    assert [point.value_cents / 100 for point in found.equity] == pytest.approx(worth, abs=CENT)


async def test_seeded_users_risk_is_the_independent_one(world: World) -> None:
    """Volatility, Sharpe ratio, both drawdowns and the equity curve, for busy users and quiet ones."""
    rows = independent.read(world.url)
    for user in range(1, USERS + 1, 4):
        await check(user, rows)


async def test_short_positions_have_the_independent_risk_too(world: World) -> None:
    """A user who sold short in 2008, turned long in one trade and short again."""
    orders = [
        Order("AAPL", "sell", 5_000, "170.00", at=datetime.datetime(2008, 3, 3, 16, tzinfo=datetime.UTC)),
        Order("AAPL", "buy", 9_000, "95.00", at=datetime.datetime(2008, 11, 12, 16, tzinfo=datetime.UTC)),
        Order("AAPL", "sell", 8_000, "310.00", at=datetime.datetime(2010, 11, 12, 16, tzinfo=datetime.UTC)),
    ]
    await import_trades(USERS, orders)
    assert (await queries.portfolio_summary(USERS, CostBasis.FIFO)).positions[0].quantity < 0
    await check(USERS, independent.read(world.url))


async def test_the_curve_ends_with_what_the_portfolio_says(world: World) -> None:
    """Realized plus unrealized profit of the portfolio is the last point of the equity curve."""
    for user in (1, 2, USERS):
        summary = await queries.portfolio_summary(user, CostBasis.AVERAGE)
        last = (await queries.risk_of(user, 0.0)).equity[-1]
        assert last.value_cents == pytest.approx(summary.value_cents, abs=len(summary.positions))
        assert last.profit_cents == pytest.approx(summary.realized_cents + summary.unrealized_cents, abs=5)


def test_a_return_is_the_gain_over_the_capital_at_work() -> None:
    """Bought 10 at 100, closes 110 and 99; bought 10 more on the third day: its capital is 20 shares'."""
    bought = [trade(0, Side.BUY, 10, 10_000), trade(2, Side.BUY, 10, 10_000)]
    days = risk.curve(bought, closes(110.0, 99.0, 101.0))
    assert risk.daily_returns(days) == pytest.approx([100 / 1000, -110 / 1100, 30 / 1990])


def test_days_without_capital_have_no_return() -> None:
    """Between selling everything and buying again the curve is flat and says nothing about risk."""
    there_and_back = [trade(0, Side.BUY, 10, 10_000), trade(1, Side.SELL, 10, 11_000), trade(3, Side.BUY, 1, 10_000)]
    days = risk.curve(there_and_back, closes(100.0, 105.0, 500.0, 100.0))
    assert [day.profit for day in days] == [0, 10_000, 10_000, 10_000]
    assert risk.daily_returns(days) == pytest.approx([0.0, 0.1, 0.0])


def test_what_is_traded_after_the_last_close_makes_one_more_day() -> None:
    """Valued at the closes there are: so a trade of today counts before today's bar is in."""
    days = risk.curve([trade(0, Side.BUY, 10, 10_000), trade(9, Side.BUY, 10, 9_000)], closes(100.0))
    assert [(day.day, day.value, day.profit) for day in days] == [
        (MONDAY, 100_000, 0),
        (MONDAY + datetime.timedelta(days=9), 200_000, 10_000),
    ]


def test_a_symbol_is_worth_what_was_paid_until_it_has_a_close() -> None:
    """No close yet is no loss."""
    days = risk.curve([trade(0, Side.BUY, 10, 10_000)], {MONDAY: {}})
    assert [(day.value, day.profit) for day in days] == [(100_000, 0)]


def test_too_few_days_say_nothing() -> None:
    """Below twenty returns there is no volatility and no Sharpe ratio; without trades there is no curve."""
    few = risk.assess(1, risk.curve([trade(0, Side.BUY, 1, 10_000)], closes(*range(100, 118))), 0.0)
    assert (few.days, few.volatility, few.sharpe, few.max_drawdown) == (18, None, None, 0.0)
    none = risk.assess(1, risk.curve([], closes(100.0)), 0.0)
    assert (none.days, none.equity, none.max_drawdown_cents) == (0, (), 0)


def test_losing_more_than_everything_is_a_drawdown_of_one() -> None:
    """A short position may lose more than the capital at work; a drawdown stops at 100 %."""
    days = risk.curve([trade(0, Side.SELL, 10, 1_000)], closes(10.0, 35.0))
    assert risk.assess(1, days, 0.0).max_drawdown == 1.0
    assert risk.assess(1, days, 0.0).max_drawdown_cents == 25_000


def test_prices_that_never_move_have_no_sharpe_ratio() -> None:
    """A deviation of zero divides nothing."""
    still = risk.assess(1, risk.curve([trade(0, Side.BUY, 1, 10_000)], closes(*[100.0] * 30)), 0.0)
    assert (still.volatility, still.sharpe) == (0.0, None)
