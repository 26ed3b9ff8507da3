"""Real daily prices, 2000 to 2013: AAPL, FB, GOOG, IBM, MSFT, 12,154 bars.

Source: the `bokeh_sampledata` package (BSD 3-Clause), which took them from Yahoo Finance. Prices are adjusted for
splits and dividends by the ratio of adjusted to raw close, so that a position keeps its worth across a split.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from typing import Any

INSTRUMENTS = {
    "AAPL": ("Apple Inc.", "NASDAQ"),
    "FB": ("Facebook, Inc.", "NASDAQ"),
    "GOOG": ("Google Inc.", "NASDAQ"),
    "IBM": ("International Business Machines", "NYSE"),
    "MSFT": ("Microsoft Corporation", "NASDAQ"),
}


def instrument_rows() -> list[dict[str, Any]]:
    """Return the rows of `instruments`."""
    return [
        {"symbol": symbol, "name": name, "exchange": exchange, "currency": "USD"}
        for symbol, (name, exchange) in INSTRUMENTS.items()
    ]


def bar_rows() -> Iterator[dict[str, Any]]:
    """Yield the rows of `bars`, by symbol and day. Raises: ModuleNotFoundError naming the extra to install."""
    try:
        from bokeh_sampledata import stocks  # noqa: PLC0415 - an extra, needed once, when the database is set up
    except ModuleNotFoundError as missing:
        raise ModuleNotFoundError(
            "the price data are missing: install the extra `sample` (bokeh_sampledata)"
        ) from missing
    for symbol in INSTRUMENTS:
        series = getattr(stocks, symbol)
        names = ("date", "open", "high", "low", "close", "volume", "adj_close")
        for day, opened, high, low, close, volume, adjusted in zip(*(series[name] for name in names), strict=True):
            ratio = adjusted / close
            yield {
                "symbol": symbol,
                "day": datetime.date.fromisoformat(day),
                "open": round(opened * ratio, 4),
                "high": round(high * ratio, 4),
                "low": round(low * ratio, 4),
                "close": round(adjusted, 4),
                "volume": int(volume),
            }
