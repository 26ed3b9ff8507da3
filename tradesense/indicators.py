"""Technical indicators of a series of bars. Pure; each takes the series in order and returns its last value."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence

from tradesense.results import Bar, Indicators


def sma(closes: Sequence[float], days: int) -> float | None:
    """Return the simple moving average."""
    return statistics.fmean(closes[-days:]) if len(closes) >= days else None


def ema_series(values: Sequence[float], days: int) -> list[float]:
    """Return the exponential moving average, alpha = 2 / (days + 1), begun at the first value."""
    alpha, current, series = 2 / (days + 1), 0.0, []
    for i, value in enumerate(values):
        current = value if i == 0 else current + alpha * (value - current)
        series.append(current)
    return series


def macd(closes: Sequence[float]) -> tuple[float | None, float | None]:
    """Return EMA(12) - EMA(26) and its EMA(9). Source: Appel (1979)."""
    if len(closes) < 35:
        return None, None
    lines = [fast - slow for fast, slow in zip(ema_series(closes, 12), ema_series(closes, 26), strict=True)]
    return lines[-1], ema_series(lines, 9)[-1]


def rsi(closes: Sequence[float], days: int = 14) -> float | None:
    """Return the relative strength index, 0 to 100, with Wilder's smoothing. Source: Wilder (1978)."""
    if len(closes) <= days:
        return None
    changes = [after - before for before, after in itertools.pairwise(closes)]
    gain = sum(max(change, 0.0) for change in changes[:days]) / days
    loss = sum(max(-change, 0.0) for change in changes[:days]) / days
    for change in changes[days:]:
        gain = (gain * (days - 1) + max(change, 0.0)) / days
        loss = (loss * (days - 1) + max(-change, 0.0)) / days
    return 100.0 if loss == 0 else 100 - 100 / (1 + gain / loss)


def bollinger(closes: Sequence[float], days: int = 20, width: float = 2.0) -> tuple[float | None, float | None]:
    """Return the upper and lower band: the average plus and minus *width* population deviations. Source: Bollinger."""
    if len(closes) < days:
        return None, None
    middle, deviation = statistics.fmean(closes[-days:]), statistics.pstdev(closes[-days:])
    return middle + width * deviation, middle - width * deviation


def atr(bars: Sequence[Bar], days: int = 14) -> float | None:
    """Return the average true range with Wilder's smoothing. Source: Wilder (1978)."""
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
        ema_12=ema_series(closes, 12)[-1] if len(closes) >= 12 else None,
        ema_26=ema_series(closes, 26)[-1] if len(closes) >= 26 else None,
        macd=line,
        macd_signal=signal,
        rsi_14=rsi(closes),
        bollinger_upper=upper,
        bollinger_lower=lower,
        atr_14=atr(bars),
    )
