"""The same figures, computed another way: numpy and pandas on the rows, nothing shared with the application.

Dollars as floats here. The application's cents are whole, and each partial close rounds to the nearest one.
"""

from __future__ import annotations

import sqlite3
from typing import NamedTuple

import numpy as np
import pandas as pd


class World(NamedTuple):
    """The tables as they lie in a SQLite file."""

    trades: pd.DataFrame
    bars: pd.DataFrame
    settings: pd.DataFrame


def read(url: str) -> World:
    """Read the tables with nothing but the standard library's driver."""
    connection = sqlite3.connect(url.removeprefix("sqlite:///"))
    try:
        frames = [
            pd.read_sql_query(f"SELECT * FROM {table}", connection)  # noqa: S608 - our own three names
            for table in ("trades", "bars", "settings")
        ]
    finally:
        connection.close()
    trades, bars, settings = frames
    trades["at"] = pd.to_datetime(trades["at"], format="ISO8601").dt.tz_localize("UTC")
    bars["day"] = pd.to_datetime(bars["day"])
    return World(with_amounts(trades.sort_values(["at", "id"], ignore_index=True)), bars, settings)


def with_amounts(trades: pd.DataFrame) -> pd.DataFrame:
    """Add signed shares and dollars paid: a fee makes a purchase dearer and a sale cheaper."""
    shares = np.where(trades.side == "buy", trades.quantity, -trades.quantity)
    return trades.assign(shares=shares, paid=(shares * trades.price_cents + trades.fee_cents) / 100)


def fifo_pairs(trades: pd.DataFrame) -> pd.DataFrame:
    """Pair the k-th share bought with the k-th share sold, symbol by symbol: that is what first in, first out means.

    Whichever comes first, it also holds for short positions. A pair is closed at the later of its two times.
    """
    pairs = []
    for symbol, rows in trades.groupby("symbol"):
        sides = []
        for side, sign in (("buy", 1), ("sell", -1)):
            mine = rows[rows.side == side]
            each = np.repeat((sign * mine.paid / mine.quantity).to_numpy(), mine.quantity)
            order = np.repeat(mine.index.to_numpy(), mine.quantity)
            sides.append((each, order))
        (paid, bought), (received, sold) = sides
        count = min(len(paid), len(received))
        closed_by = np.maximum(bought[:count], sold[:count])
        pairs.append(pd.DataFrame({"profit": received[:count] - paid[:count], "trade": closed_by, "symbol": symbol}))
    return pd.concat(pairs, ignore_index=True)


def fifo_profits(trades: pd.DataFrame) -> pd.Series:
    """Return the profit of each trade that closed something, by its row."""
    return fifo_pairs(trades).groupby("trade").profit.sum()


def average_profits(trades: pd.DataFrame) -> pd.Series:
    """The same at average cost: one average price a symbol, which a close leaves as it is."""
    profits: dict[int, float] = {}
    for _, rows in trades.groupby("symbol"):
        held, average = 0, 0.0
        for row in rows.itertuples():
            each = row.paid / row.shares
            closing = min(abs(row.shares), abs(held)) if held * row.shares < 0 else 0
            if closing:
                profits[row.Index] = closing * (each - average) * np.sign(held)
            opening = row.shares + np.sign(held) * closing
            held += row.shares
            if opening:
                average = each if abs(opening) == abs(held) else average + (each - average) * opening / held
    return pd.Series(profits, dtype=float).sort_index()


def positions(trades: pd.DataFrame) -> pd.Series:
    """Return the shares held by symbol, without those that are not."""
    held = trades.groupby("symbol").shares.sum()
    return held[held != 0]


class Curve(NamedTuple):
    """The equity curve by day, dollars."""

    value: pd.Series
    profit: pd.Series
    returns: np.ndarray


def curve(trades: pd.DataFrame, bars: pd.DataFrame) -> Curve:
    """Return the portfolio at each close: matrices of shares and closes instead of a loop over days.

    What was traded after the last close makes one more day, at the closes there are.
    """
    traded = trades["at"].dt.tz_convert("America/New_York").dt.tz_localize(None).dt.normalize()
    known = bars[bars.symbol.isin(trades.symbol) & (bars.day >= traded.iloc[0])]
    closes = known.pivot_table(index="day", columns="symbol", values="close").sort_index()
    if traded.iloc[-1] > closes.index[-1]:
        closes.loc[traded.iloc[-1]] = np.nan
    counted = closes.index[np.searchsorted(closes.index, traded)]
    moves = trades.assign(day=counted).pivot_table(index="day", columns="symbol", values="shares", aggfunc="sum")
    shares = moves.reindex(closes.index).fillna(0).cumsum()
    worth = (shares * closes.ffill()).fillna(0)
    after = trades.groupby("symbol").shares.cumsum()
    before = after - trades.shares
    turned = np.sign(after) != np.sign(before)
    opened = np.where(turned, after.abs(), np.maximum(after.abs() - before.abs(), 0)) * trades.price_cents / 100
    by_day = pd.DataFrame({"day": counted, "paid": trades.paid, "opened": opened}).groupby("day").sum()
    by_day = by_day.reindex(closes.index).fillna(0)
    profit = worth.sum(axis=1) - by_day.paid.cumsum()
    capital = worth.abs().sum(axis=1).shift(1, fill_value=0) + by_day.opened
    gains = profit.diff().fillna(profit.iloc[0])
    working = capital > 0
    return Curve(worth.sum(axis=1), profit, (gains[working] / capital[working]).to_numpy())


def drawdown(returns: np.ndarray) -> float:
    """Return the largest relative fall of the compounded returns."""
    wealth = np.concatenate([[1.0], np.cumprod(1 + returns)])
    return float((1 - wealth / np.maximum.accumulate(wealth)).max())


def volatility(returns: np.ndarray) -> float:
    """Return the annualized deviation of a sample."""
    return float(np.std(returns, ddof=1) * np.sqrt(252))


def sharpe(returns: np.ndarray, risk_free_rate: float) -> float:
    """Return the annualized Sharpe ratio of excess returns."""
    excess = returns - risk_free_rate / 252
    return float(np.mean(excess) / np.std(excess, ddof=1) * np.sqrt(252))


def wilder(values: pd.Series, days: int) -> pd.Series:
    """Return Wilder's moving average: the mean of the first values, then alpha 1/days."""
    begun = pd.concat([pd.Series([values.iloc[:days].mean()]), values.iloc[days:]])
    return begun.ewm(alpha=1 / days, adjust=False).mean()


def indicators(bars: pd.DataFrame) -> dict[str, float]:
    """Return every indicator of a series of bars, at the last one."""
    close = bars.close
    fast, slow = close.ewm(span=12, adjust=False).mean(), close.ewm(span=26, adjust=False).mean()
    line = fast - slow
    change = close.diff().iloc[1:]
    strength = wilder(change.clip(lower=0), 14).iloc[-1] / wilder(-change.clip(upper=0), 14).iloc[-1]
    before = close.shift(1)
    ranges = pd.concat([bars.high - bars.low, (bars.high - before).abs(), (bars.low - before).abs()], axis=1).max(
        axis=1
    )
    middle, width = close.rolling(20).mean().iloc[-1], 2 * close.rolling(20).std(ddof=0).iloc[-1]
    return {
        "sma_20": middle,
        "sma_50": close.rolling(50).mean().iloc[-1],
        "ema_12": fast.iloc[-1],
        "ema_26": slow.iloc[-1],
        "macd": line.iloc[-1],
        "macd_signal": line.ewm(span=9, adjust=False).mean().iloc[-1],
        "rsi_14": 100 - 100 / (1 + strength),
        "bollinger_upper": middle + width,
        "bollinger_lower": middle - width,
        "atr_14": wilder(ranges.iloc[1:], 14).iloc[-1],
    }
