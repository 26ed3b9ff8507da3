"""What shows that a target is reached: read where it was measured, so that no figure is copied.

A label that is gone ends the writing of the page. A section that is not there yet is a figure that was not measured.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from tests.docs.chaos import explained, results

DOCS = Path(__file__).parents[3] / "docs"
MET, MISSED, NOT_MEASURED = "met", "**missed**", "not measured"

Judge = Callable[[list[float]], bool]


class Gone(Exception):
    """What a target was read from is not there any more, or says something else."""


class Figure(NamedTuple):
    """What was reached."""

    said: str
    state: str
    why: str = ""
    """What the evidence itself has to say of it."""


class Evidence(Protocol):
    """Where a figure comes from."""

    def figure(self) -> Figure:
        """Return it; raises Gone."""


def at_most(limit: float) -> Judge:
    """Return whether all figures are at most that."""
    return lambda found: max(found) <= limit


def at_least(limit: float) -> Judge:
    """Return whether all figures are at least that."""
    return lambda found: min(found) >= limit


def none_more(found: list[float]) -> bool:
    """Return whether the last figure is not above the first."""
    return found[-1] <= found[0]


def page(name: str) -> str:
    """Return a page of the documentation."""
    return (DOCS / name).read_text(encoding="utf-8")


def number(text: str) -> float:
    """Return the first number in a text."""
    found = re.search(r"-?[\d,]*\.?\d+", text)
    if found is None:
        raise Gone(f"no number in {text!r}")
    return float(found[0].replace(",", ""))


@dataclass(frozen=True)
class Measured:
    """A row of a section of benchmarks.md."""

    section: str
    """What `make bench ARGS=` is called with."""
    label: str

    def cells(self) -> list[str] | None:
        """Return the row's cells after its label; None where there is no such section."""
        text = page("reference/benchmarks.md")
        _, begun, rest = text.partition(f"<!-- {self.section}: written by make bench -->")
        if not begun:
            return None
        lines = rest.partition(f"<!-- end of {self.section} -->")[0].splitlines()
        rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
        found = [row[1:] for row in rows if row[0] == self.label]
        if not found:
            raise Gone(f"benchmarks.md has no row {self.label!r} in its section {self.section!r}")
        return found[0]

    @property
    def unmeasured(self) -> Figure:
        """What is said where there is no such section."""
        return Figure("", NOT_MEASURED, f"No run of `make bench ARGS={self.section}` is on the page of measurements.")


@dataclass(frozen=True)
class Wanted(Measured):
    """A row that says itself whether it is met; `bound` is what it must have been held against."""

    bound: str

    def figure(self) -> Figure:
        """Return what was found."""
        cells = self.cells()
        if cells is None:
            return self.unmeasured
        found, bound, state = cells[:3]
        if bound != self.bound:
            raise Gone(f"{self.label}: benchmarks.md wants {bound}, the target {self.bound}")
        if state not in (MET, MISSED):
            raise Gone(f"{self.label}: {state!r} is no state")
        return Figure(found, state)


@dataclass(frozen=True)
class Row(Measured):
    """A row of plain figures: value, unit, note."""

    judge: Judge
    note: str = ""
    """A pattern with one group: the figure is in the note, and its value there."""

    def figure(self) -> Figure:
        """Return the value, or what the note says."""
        cells = self.cells()
        if cells is None:
            return self.unmeasured
        value, unit, note = cells[:3]
        if not self.note:
            said = f"{value} {unit}"
        elif (found := re.search(self.note, note)) is not None:
            said = found[1]
        else:
            raise Gone(f"{self.label}: no {self.note!r} in {note!r}")
        return Figure(said, MET if self.judge([number(said)]) else MISSED)


@dataclass(frozen=True)
class Said:
    """A sentence or a row of a page that somebody has written, with the figures in it."""

    where: str
    pattern: str
    """Its groups are the figures."""
    judge: Judge
    said: str
    """With a `{}` for each group."""

    def figure(self) -> Figure:
        """Return the figures of the sentence."""
        found = re.search(self.pattern, page(self.where), re.DOTALL)
        if found is None:
            raise Gone(f"{self.where} has no {self.pattern!r}")
        figures = [number(group) for group in found.groups()]
        return Figure(self.said.format(*found.groups()), MET if self.judge(figures) else MISSED)


NEVER_STALE = Said(
    "reference/fault-matrix.md",
    r"\*\*(\d+) stale reads of ([\d,]+)\*\*, beside ([\d,]+) invalidations",
    lambda found: found[0] == 0,
    "{} of {} reads, beside {} invalidations",
)


@dataclass(frozen=True)
class Attacked:
    """What a harness did in the last long run, and that nothing was wrong which nobody has explained."""

    harness: str
    what: str
    """Which of its counts or faults."""
    least: int

    def figure(self) -> Figure:
        """Return how often it was done, and what was wrong."""
        found = [each for each in results() if each.name == self.harness and not each.without]
        if not any(self.what in each.counts or self.what in each.faults for each in found):
            raise Gone(f"run.json has no {self.what!r} of {self.harness!r}")
        done = sum(each.counts.get(self.what, 0) + each.faults.get(self.what, 0) for each in found)
        wrong = sum(len(each.wrong) for each in found if not explained(each))
        said = f"{done:,} {self.what}, {wrong} wrong"
        if wrong:
            return Figure(said, MISSED, f"[What was wrong](chaos.md#{self.harness}).")
        if done < self.least:
            return Figure(said, NOT_MEASURED, f"The last long run had fewer than {self.least:,}.")
        return Figure(said, MET)


@dataclass(frozen=True)
class Shown:
    """What tests assert exactly: it is so as long as they pass."""

    said: str
    enough: bool = True
    """Whether that is what was wanted."""

    def figure(self) -> Figure:
        """Return what they show."""
        return Figure(self.said, MET if self.enough else MISSED)


@dataclass(frozen=True)
class Unshown:
    """Not measured, or not as far as the target wants: no test and no measurement says that it is reached."""

    said: str = ""
    """As far as something shows it."""

    def figure(self) -> Figure:
        """Return that."""
        return Figure(self.said, NOT_MEASURED)


@dataclass(frozen=True)
class Nearly:
    """A figure that was taken of something less than what is wanted, which therefore is not measured."""

    of: Said

    def figure(self) -> Figure:
        """Return it."""
        return Figure(self.of.figure().said, NOT_MEASURED)


class Part(NamedTuple):
    """A part of a target that has a state of its own."""

    wanted: str
    evidence: Evidence
    tests: tuple[str, ...] = ()
    """Below `tests/`."""
    why: str = ""
    """Why it is missed or not measured."""


def benchmarked(section: str, wanted: str, label: str, bound: str, *tests: str, why: str = "") -> Part:
    """Return a part that a row of a benchmark shows."""
    return Part(wanted, Wanted(section, label, bound), tests, why)


class Target(NamedTuple):
    """One of the 35."""

    number: int
    title: str
    parts: tuple[Part, ...]
    harnesses: tuple[str, ...] = ()
    """Of `python -m tests.chaos`."""
