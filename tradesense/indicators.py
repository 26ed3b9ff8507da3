"""Technical indicators of a series of bars. Pure; each takes the series in order.

Functions that end in `_series` return a value for each bar, None where too few came before it; the others the last one.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence

from tradesense.results import Bar, Indicators, IndicatorSeries

Series = list[float | None]
CHART_DIGITS = 4
"""Decimals of a series: more than a chart can show, and half of what JSON would carry otherwise."""


def sma(closes: Sequence[float], days: int) -> float | None:
    """Return the simple moving average. Source: Murphy, Technical Analysis of the Financial Markets (1999)."""
    return statistics.fmean(closes[-days:]) if len(closes) >= days else None


def sma_series(closes: Sequence[float], days: int) -> Series:
    """Return `sma` at each bar."""
    return [sma(closes[max(0, end - days) : end], days) for end in range(1, len(closes) + 1)]


def ema_series(values: Sequence[float], days: int) -> list[float]:
    """Return the exponential moving average: alpha = 2 / (days + 1), begun at the first value. Source: Murphy."""
    alpha = 2 / (days + 1)
    return list(itertools.accumulate(values, lambda current, value: current + alpha * (value - current)))


def ema(values: Sequence[float], days: int) -> float | None:
    """Return the last of the exponential moving average, once it has seen as many values as days."""
    return ema_series(values, days)[-1] if len(values) >= days else None


def macd(closes: Sequence[float]) -> tuple[float | None, float | None]:
    """Return EMA(12) - EMA(26), and the signal line: its EMA(9). Source: Appel, Technical Analysis (2005)."""
    lines, signals = macd_series(closes)
    return (lines[-1], signals[-1]) if closes else (None, None)


def macd_series(closes: Sequence[float]) -> tuple[Series, Series]:
    """Return `macd` at each bar: the lines, and the signal lines."""
    lines = [fast - slow for fast, slow in zip(ema_series(closes, 12), ema_series(closes, 26), strict=True)]
    return _begun(lines, 26 + 9), _begun(ema_series(lines, 9), 26 + 9)


def rsi(closes: Sequence[float], days: int = 14) -> float | None:
    """Return the relative strength index, 0 to 100, with Wilder's smoothing; 50 where nothing ever moved.

    Source: Wilder, New Concepts in Technical Trading Systems (1978).
    """
    return rsi_series(closes, days)[-1] if closes else None


def rsi_series(closes: Sequence[float], days: int = 14) -> Series:
    """Return `rsi` at each bar."""
    if len(closes) <= days:
        return [None] * len(closes)
    changes = [after - before for before, after in itertools.pairwise(closes)]
    gain = sum(max(change, 0.0) for change in changes[:days]) / days
    loss = sum(max(-change, 0.0) for change in changes[:days]) / days
    strengths: Series = [*[None] * days, _strength(gain, loss)]
    for change in changes[days:]:
        gain = (gain * (days - 1) + max(change, 0.0)) / days
        loss = (loss * (days - 1) + max(-change, 0.0)) / days
        strengths.append(_strength(gain, loss))
    return strengths


def _strength(gain: float, loss: float) -> float:
    return 100 * gain / (gain + loss) if gain + loss else 50.0


def bollinger(closes: Sequence[float], days: int = 20, width: float = 2.0) -> tuple[float | None, float | None]:
    """Return the upper and lower band: the average plus and minus *width* standard deviations, of the population.

    Source: Bollinger, Bollinger on Bollinger Bands (2001). The middle band is the SMA of the same days.
    """
    if len(closes) < days:
        return None, None
    middle, deviation = statistics.fmean(closes[-days:]), statistics.pstdev(closes[-days:])
    return middle + width * deviation, middle - width * deviation


def bollinger_series(closes: Sequence[float], days: int = 20) -> tuple[Series, Series]:
    """Return `bollinger` at each bar: the upper bands, and the lower ones."""
    bands = [bollinger(closes[max(0, end - days) : end], days) for end in range(1, len(closes) + 1)]
    return [upper for upper, _ in bands], [lower for _, lower in bands]


def atr(bars: Sequence[Bar], days: int = 14) -> float | None:
    """Return the average true range, dollars, with Wilder's smoothing. Source: Wilder (1978)."""
    if len(bars) <= days:
        return None
    ranges = [
        max(bar.high - bar.low, math.fabs(bar.high - before.close), math.fabs(bar.low - before.close))
        for before, bar in itertools.pairwise(bars)
    ]
    current = statistics.fmean(ranges[:days])
    for value in ranges[days:]:
        current = (current * (days - 1) + value) / days
    return current


def indicators(bars: Sequence[Bar]) -> Indicators:
    """Return all of them for a series of bars in order of days."""
    closes = [bar.close for bar in bars]
    line, signal = macd(closes)
    upper, lower = bollinger(closes)
    return Indicators(
        sma_20=sma(closes, 20),
        sma_50=sma(closes, 50),
        ema_12=ema(closes, 12),
        ema_26=ema(closes, 26),
        macd=line,
        macd_signal=signal,
        rsi_14=rsi(closes),
        bollinger_upper=upper,
        bollinger_lower=lower,
        atr_14=atr(bars),
    )


def indicator_series(bars: Sequence[Bar], last: int) -> IndicatorSeries:
    """Return those that a chart shows, at the *last* so many of *bars*."""
    closes = [bar.close for bar in bars]
    lines, signals = macd_series(closes)
    uppers, lowers = bollinger_series(closes)
    return IndicatorSeries(
        sma_20=_shown(sma_series(closes, 20), last),
        sma_50=_shown(sma_series(closes, 50), last),
        bollinger_upper=_shown(uppers, last),
        bollinger_lower=_shown(lowers, last),
        rsi_14=_shown(rsi_series(closes), last),
        macd=_shown(lines, last),
        macd_signal=_shown(signals, last),
    )


def _begun(values: Sequence[float], first: int) -> Series:
    """Return *values* without those before the *first* so many were seen."""
    return [value if count >= first else None for count, value in enumerate(values, start=1)]


def _shown(values: Series, last: int) -> tuple[float | None, ...]:
    return tuple(None if value is None else round(value, CHART_DIGITS) for value in values[-last:])
