"""What the caches hold: a value of everyday size, and larger ones."""

from __future__ import annotations

import msgspec


class Summary(msgspec.Struct, frozen=True):
    """About 160 bytes of JSON."""

    user_id: int
    total: float
    positions: tuple[tuple[str, int, float], ...]


def summary(user_id: int) -> Summary:
    """Return a value for a user."""
    return Summary(user_id, 1234.5, tuple((symbol, 100, 12.25) for symbol in ("AAPL", "IBM", "MSFT", "GOOG")))


def large(key: int, size: int) -> Summary:
    """Return a value of about *size* bytes of JSON: rows of a table, which repeat themselves as rows do."""
    rows = tuple((f"SYM{(key + n) % 9973}", n % 1000, round(n * 1.37 % 997, 2)) for n in range(max(1, size // 21)))
    return Summary(key, 1234.5, rows)


encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder(Summary).decode
