"""What a trained zstd dictionary would save on small, similar values, and what it would cost.

Values are made up, in the shapes of the example's views. Sizes are those of whole entries with their keys, as the
server counts them (MEMORY USAGE); times are of one value.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable
from typing import Any

import msgspec

from benchmarks.report import Report
from cachebus.entry import LARGEST_BYTES, ZSTD_LEVEL, Header, pack
from cachebus.private_server import PrivateServer

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

SAMPLES = 500
DICTIONARY_BYTES = 4096
TESTED = 1000
SYMBOLS = ("AAPL", "MSFT", "GOOG", "AMZN", "IBM", "YHOO")
ROUNDS = 5

choose = random.Random(1)  # noqa: S311 - values that can be had again


def portfolio() -> dict[str, Any]:
    """A handful of positions: the names of the fields are most of it."""
    positions = [
        {
            "symbol": choose.choice(SYMBOLS),
            "quantity": choose.randrange(1, 500),
            "average_price": round(choose.uniform(10, 400), 2),
            "market_value": round(choose.uniform(1e3, 1e5), 2),
        }
        for _ in range(choose.randrange(1, 6))
    ]
    return {"user_id": choose.randrange(10**6), "currency": "USD", "positions": positions, "total": choose.random()}


def settings() -> dict[str, Any]:
    """Words out of a few."""
    return {
        "user_id": choose.randrange(10**6),
        "theme": choose.choice(("dark", "light")),
        "timezone": choose.choice(("Europe/Berlin", "America/New_York", "Asia/Tokyo")),
        "notifications": {name: choose.random() < 0.5 for name in ("trades", "alerts", "weekly_report")},
        "layout": ["chart", "positions", "orders", "news"],
    }


def risk() -> dict[str, float]:
    """Numbers: nothing but their names repeats."""
    return {name: choose.random() for name in ("drawdown", "volatility", "sharpe", "beta", "value_at_risk")}


def bars() -> dict[str, Any]:
    """Large enough to be compressed without."""
    days = [{name: choose.random() for name in ("open", "high", "low", "close", "volume")} for _ in range(20)]
    return {"symbol": choose.choice(SYMBOLS), "bars": days}


def noise() -> dict[str, Any]:
    """Nothing to find."""
    return {"digest": choose.randbytes(200)}


def microseconds(work: Callable[[bytes], object], values: list[bytes]) -> float:
    """Return how long one takes, the best of a few rounds."""
    best = float("inf")
    for _ in range(ROUNDS):
        began = time.perf_counter()
        for value in values:
            work(value)
        best = min(best, time.perf_counter() - began)
    return best / len(values) * 1e6


def stored_bytes(server: PrivateServer, entry: bytes) -> int:
    """Return what the server spends on an entry and its key."""
    name = "cachebus:e:{portfolio:123456:summary}:0a1b2c3d"
    server.ask("SET", name, entry, "PX", 600_000)
    return int(server.ask("MEMORY", "USAGE", name))


def main() -> None:
    """Measure each shape."""
    report = Report("dictionaries")
    header = Header(600_000, 0, 12.5, ("user:123456", "portfolio:123456"))
    with PrivateServer.start("appendonly no") as server:
        for make in (portfolio, settings, risk, bars, noise):
            samples = [msgspec.msgpack.encode(make()) for _ in range(SAMPLES)]
            values = [msgspec.msgpack.encode(make()) for _ in range(TESTED)]
            began = time.perf_counter()
            trained = zstd.train_dict(samples, DICTIONARY_BYTES)
            took_ms = (time.perf_counter() - began) * 1000
            compressor = zstd.ZstdCompressor(level=ZSTD_LEVEL, zstd_dict=trained)

            def compress(value: bytes, compressor: zstd.ZstdCompressor = compressor) -> bytes:
                return compressor.compress(value, zstd.ZstdCompressor.FLUSH_FRAME)

            def inflate(value: bytes, trained: zstd.ZstdDict = trained) -> bytes:
                return zstd.ZstdDecompressor(zstd_dict=trained).decompress(value, max_length=LARGEST_BYTES)

            smaller = [compress(value) for value in values]
            assert [inflate(value) for value in smaller] == values
            now = sum(stored_bytes(server, pack(value, 1, header, "value")) for value in values) / TESTED
            plain = pack(b"", 1, header, "value")
            then = sum(stored_bytes(server, plain + value) for value in smaller) / TESTED
            name, raw = make.__name__, sum(map(len, values)) / TESTED
            report.add(f"{name}: value", raw, "bytes")
            report.add(f"{name}: with a dictionary", sum(map(len, smaller)) / TESTED, "bytes")
            report.add(f"{name}: entry in Redis, as now", now, "bytes")
            report.add(f"{name}: entry in Redis, with a dictionary", then, "bytes", f"{then / now - 1:+.0%}")
            report.add(f"{name}: to compress", microseconds(compress, values), "µs")
            report.add(f"{name}: to inflate", microseconds(inflate, smaller), "µs", f"training took {took_ms:.0f} ms")
    report.write("backports.zstd")
