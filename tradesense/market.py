"""Real daily prices, March 2000 to March 2013: AAPL, FB, GOOG, IBM, MSFT, 12,154 bars.

They lie in `data/prices.csv.gz`; `data/README.md` says where they come from. GOOG is the share that has been called
GOOGL since 2014.

Prices are as quoted on the day: nothing is adjusted, so a trade at a bar's price is a trade as it could have been made.
The three splits in the series are of 2000, 2003 and 2005; from `TRADABLE_FROM` on there is none, and shares keep their
number. Dividends are not part of the figures.
"""

from __future__ import annotations

import csv
import datetime
import gzip
import io
from collections.abc import Iterator
from importlib.resources import files
from typing import Any
from zoneinfo import ZoneInfo

EXCHANGE = ZoneInfo("America/New_York")
"""The exchanges' time: a trade belongs to the bar of this day."""
TRADABLE_FROM = datetime.date(2005, 3, 1)
"""The day after the last split of the series (AAPL, two for one, 28 February 2005)."""

INSTRUMENTS = {
    "AAPL": ("Apple Inc.", "NASDAQ"),
    "FB": ("Facebook, Inc.", "NASDAQ"),
    "GOOG": ("Google Inc.", "NASDAQ"),
    "IBM": ("International Business Machines", "NYSE"),
    "MSFT": ("Microsoft Corporation", "NASDAQ"),
}


def trading_day(at: datetime.datetime) -> datetime.date:
    """Return the exchange's day of an instant."""
    return at.astimezone(EXCHANGE).date()


def instrument_rows() -> list[dict[str, Any]]:
    """Return the rows of `instruments`."""
    return [
        {"symbol": symbol, "name": name, "exchange": exchange, "currency": "USD"}
        for symbol, (name, exchange) in INSTRUMENTS.items()
    ]


def bar_rows() -> Iterator[dict[str, Any]]:
    """Yield the rows of `bars`, by symbol and day."""
    packed = (files("tradesense") / "data" / "prices.csv.gz").read_bytes()
    for row in csv.DictReader(io.StringIO(gzip.decompress(packed).decode())):
        yield {
            "symbol": row["symbol"],
            "day": datetime.date.fromisoformat(row["day"]),
            **{name: float(row[name]) for name in ("open", "high", "low", "close")},
            "volume": int(row["volume"]),
        }
