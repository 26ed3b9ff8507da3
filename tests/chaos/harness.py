"""What a harness is: rounds of load and faults against one part, each judged by a checker that trusts nobody."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import msgspec


class Findings(msgspec.Struct):
    """What was done, what was injected, and what should not have been."""

    counts: Counter[str] = msgspec.field(default_factory=Counter)
    faults: Counter[str] = msgspec.field(default_factory=Counter)
    wrong: list[str] = msgspec.field(default_factory=list)
    lacking: set[str] = msgspec.field(default_factory=set)
    """What this machine has not, and was therefore not injected."""

    def add(self, other: Findings) -> None:
        """Count another round in."""
        self.counts += other.counts
        self.faults += other.faults
        self.wrong += other.wrong
        self.lacking |= other.lacking


class Attack(NamedTuple):
    """What a round is given."""

    draw: random.Random
    """Its moments."""
    broken: bool = False
    """Whether the part that is tested is taken out."""
    topology: str = "one"
    """Of `tests.support.topologies`."""


Round = Callable[[Attack], Awaitable[Findings]]


class Harness(NamedTuple):
    """One of them."""

    name: str
    promise: str
    """What it attacks, in one sentence."""
    without: str
    """What `--break` takes out: then it must find something."""
    round: Round
    topologies: tuple[str, ...] = ("one",)
    """Where it applies: what needs no server has one only."""
