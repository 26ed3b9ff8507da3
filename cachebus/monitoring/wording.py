"""How figures are said, on the page and on the command line. Pure."""

from __future__ import annotations


def counted(number: int, one: str, several: str = "") -> str:
    """Return a number with its noun: `1 letter`, `2,000 letters`."""
    return f"{number:,} {one if number == 1 else several or one + 's'}"
