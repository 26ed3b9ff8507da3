"""One life of a ledger, as logs and pages describe it. Pure."""

from __future__ import annotations

from typing import NamedTuple

WHY = {
    "lost": "there was no ledger",
    "run": "the server was restarted or failed over, and invalidations may be lost",
    "absurd": "its clock could not be right",
}
"""Why a new era began, by the word that `ledger.lua` stores."""


class Era(NamedTuple):
    """The present era of a deployment's ledger."""

    name: str
    why: str
    """A word of `WHY`."""
    began_us: int
    """Microseconds of the server's time."""
