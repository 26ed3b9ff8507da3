"""Technical indicators, beside pandas on the same bars and a published example."""

from __future__ import annotations

import datetime

import msgspec
import pytest

from tests.support import independent
from tests.tradesense.conftest import World
from tradesense import queries
from tradesense.indicators import bollinger, indicators, rsi
from tradesense.market import INSTRUMENTS
from tradesense.results import Bar


def flat(count: int) -> list[Bar]:
    """Bars of a price that never moves."""
    first = datetime.date(2013, 1, 1)
    return [Bar(first + datetime.timedelta(days=i), 10.0, 10.0, 10.0, 10.0, 0) for i in range(count)]


@pytest.mark.parametrize("symbol", INSTRUMENTS)
async def test_indicators_are_those_of_pandas(world: World, symbol: str) -> None:
    """Every indicator of every symbol's last year of real bars."""
    bars = independent.read(world.url).bars
    year = bars[bars.symbol == symbol].sort_values("day").tail(queries.INDICATOR_BARS).reset_index(drop=True)
    found = await queries.market_data(symbol)
    assert msgspec.structs.asdict(found.indicators) == pytest.approx(independent.indicators(year))
    assert found.change == pytest.approx(year.close.pct_change().iloc[-1])
    shown = [(bar.day, bar.open, bar.high, bar.low, bar.close, bar.volume) for bar in found.bars]
    last = year.tail(queries.SHOWN_BARS)
    assert shown == [(row.day.date(), *tuple(row)[3:]) for row in last.itertuples()]


@pytest.mark.parametrize("symbol", INSTRUMENTS)
async def test_each_bar_of_a_chart_has_the_indicators_of_pandas(world: World, symbol: str) -> None:
    """Of a bar in the middle and of the first one: what its year says, and nothing where there were too few bars."""
    found = await queries.price_history(symbol)
    bars = independent.read(world.url).bars
    mine = bars[bars.symbol == symbol].sort_values("day").tail(queries.CHART_BARS + queries.INDICATOR_BARS)
    assert [bar.close for bar in found.bars] == list(mine.close.tail(queries.CHART_BARS))
    series = msgspec.structs.asdict(found.indicators)
    before = len(mine) - len(found.bars)
    for at in (60, len(found.bars) // 2, len(found.bars) - 1):
        expected = independent.indicators(mine.head(before + at + 1).reset_index(drop=True))
        assert {name: values[at] for name, values in series.items()} == pytest.approx(
            {name: expected[name] for name in series}, abs=1e-4
        )
    assert (series["sma_50"][0] is None) == (before < 49)


@pytest.mark.parametrize("symbol", ["AAPL", "MSFT"])
async def test_a_year_of_bars_is_enough(world: World, symbol: str) -> None:
    """What the averages began with has faded: on five years of bars they are the same to five digits."""
    bars = independent.read(world.url).bars
    years = bars[bars.symbol == symbol].sort_values("day").tail(1260).reset_index(drop=True)
    found = (await queries.market_data(symbol)).indicators
    assert msgspec.structs.asdict(found) == pytest.approx(independent.indicators(years), rel=1e-5, abs=1e-5)


def test_the_published_example_of_rsi() -> None:
    """Source: StockCharts ChartSchool, "Relative Strength Index (RSI)", the spreadsheet example with QQQQ."""
    closes = [44.3389, 44.0902, 44.1497, 43.6124, 44.3278, 44.8264, 45.0955, 45.4245, 45.8433, 46.0826, 45.8931]
    closes += [46.0328, 45.6140, 46.2820, 46.2820, 46.0028, 46.0328, 46.4116, 46.2222, 45.6439]
    found = [rsi(closes[:count]) for count in range(15, 21)]
    assert found == pytest.approx([70.53, 66.32, 66.55, 69.41, 66.36, 57.97], abs=0.01)


def test_a_market_that_only_rises_or_never_moves() -> None:
    """RSI is 100, 0 or 50, and the bands meet where nothing deviates."""
    assert rsi([float(price) for price in range(1, 30)]) == 100
    assert rsi([float(price) for price in range(30, 1, -1)]) == 0
    assert rsi([7.0] * 30) == 50
    assert bollinger([7.0] * 30) == (7.0, 7.0)


def test_too_few_bars_say_nothing() -> None:
    """Each indicator is None until it has seen the days of its name, MACD's signal until 26 + 9."""
    assert set(msgspec.structs.asdict(indicators(flat(11))).values()) == {None}
    known = {count: msgspec.structs.asdict(indicators(flat(count))) for count in (12, 14, 15, 20, 26, 34, 35, 49, 50)}
    begins = {"ema_12": 12, "rsi_14": 15, "atr_14": 15, "sma_20": 20, "bollinger_upper": 20, "bollinger_lower": 20}
    begins |= {"ema_26": 26, "macd": 35, "macd_signal": 35, "sma_50": 50}
    for count, values in known.items():
        assert {name for name, value in values.items() if value is not None} == {
            name for name, first in begins.items() if count >= first
        }
