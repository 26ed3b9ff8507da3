"""The prices: real, complete, as quoted."""

from __future__ import annotations

from importlib.resources import files

import pandas as pd

from tests.support import independent
from tests.tradesense.conftest import World
from tradesense.market import INSTRUMENTS, TRADABLE_FROM


def test_every_real_bar_is_in_the_database(world: World) -> None:
    """All 12,154 rows of the file, value by value, and no other."""
    columns = ["symbol", "day", "open", "high", "low", "close", "volume"]
    found = independent.read(world.url).bars[columns].sort_values(["symbol", "day"], ignore_index=True)
    real = pd.read_csv(str(files("tradesense") / "data" / "prices.csv.gz"), parse_dates=["day"])[columns]
    assert len(found) == 12_154
    pd.testing.assert_frame_equal(found, real, check_dtype=False)


def test_no_share_was_split_since_trades_can_be_made(world: World) -> None:
    """From that day on no close is near a half or the double of the one before; before it, three were."""
    bars = independent.read(world.url).bars.sort_values(["symbol", "day"])
    steps = (bars.close / bars.groupby("symbol").close.shift(1)).fillna(1.0)
    split = (steps < 0.6) & (bars.symbol.isin(["AAPL", "MSFT"]))
    later = bars.day >= pd.Timestamp(TRADABLE_FROM)
    assert steps[later].between(0.7, 1.4).all()
    # One of the four is no split: 29 September 2000, when AAPL lost half of its worth in a day.
    assert list(bars.day[split].dt.strftime("%Y-%m-%d")) == ["2000-06-21", "2000-09-29", "2005-02-28", "2003-02-18"]


def test_the_closes_are_those_of_the_day(world: World) -> None:
    """Three closes that anybody can look up: the first full day after an announcement, a split, and a listing."""
    bars = independent.read(world.url).bars.set_index(["symbol", "day"]).close
    assert bars["AAPL", pd.Timestamp("2005-02-25")] == 88.99  # the last one before the split, two for one
    assert bars["FB", pd.Timestamp("2012-05-18")] == 38.2318  # its first day, sold at 38
    assert bars["GOOG", pd.Timestamp("2004-08-19")] == 100.335  # its first day, sold at 85


def test_every_instrument_has_bars(world: World) -> None:
    """What can be traded has prices."""
    assert set(independent.read(world.url).bars.symbol) == set(INSTRUMENTS)
