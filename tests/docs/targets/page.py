"""docs/reference/targets.md: each of the 35 targets with what was wanted, what is reached, and what holds it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from tests.docs.targets import living, reading, working
from tests.docs.targets.evidence import (
    MET,
    MISSED,
    NOT_MEASURED,
    Evidence,
    Figure,
    Measured,
    Nearly,
    Part,
    Said,
    Target,
    page,
)

SECTIONS = {
    "Fresh": reading.FRESH,
    "One load": reading.ONE_LOAD,
    "Fast": (*reading.FAST, *working.FAST),
    "Nothing lost": working.NOTHING_LOST,
    "Safe": living.SAFE,
    "Easy to begin with": living.JOY,
}
TARGETS = tuple(target for section in SECTIONS.values() for target in section)
INTRODUCTION = """
What was wanted, in figures, and what is reached: 35 targets, of which many have several parts. Ratios are taken in one
run, on one machine, beside the peer as its registry has it ([measurements](benchmarks.md)); what is exact is asserted
by tests; what befalls programs at random is attacked by harnesses ([what was attacked](chaos.md)). Figures are read
from there when this page is written, and a test fails where it is not what they say.

*Met* is what a test asserts or a measurement shows. *Not measured* is what neither does, or not as far as it was
wanted, whatever one may believe. What is promised to users, and its limits: [promises](promises.md).
"""
WHY = "[Why](benchmarks.md#what-is-missed-and-why)."


def targets_page() -> str:
    """Return the page."""
    found = {target.number: [part.evidence.figure() for part in target.parts] for target in TARGETS}
    states = Counter(figure.state for figures in found.values() for figure in figures)
    said = (
        f"**{states.total()} parts: {states[MET]} met, {states[MISSED]} missed, {states[NOT_MEASURED]} not measured.**"
    )
    parts = ["# Targets", "<!-- Written by `make pages`. -->", INTRODUCTION.strip(), said]
    for heading, state in (("Missed", MISSED), ("Not measured", NOT_MEASURED)):
        lines = [line for target in TARGETS for line in _listed(target, found[target.number], state)]
        parts += [f"## {heading}", "\n".join(lines) or "Nothing."]
    for section, targets in SECTIONS.items():
        parts.append(f"## {section}")
        for target in targets:
            parts += _target(target, found[target.number])
    return "\n\n".join(parts) + "\n"


def _listed(target: Target, figures: list[Figure], state: str) -> Iterator[str]:
    found = [(part, figure) for part, figure in _pairs(target, figures) if figure.state == state]
    if found:
        yield f"- [{target.number}. {target.title}](#target-{target.number})"
    for part, figure in found:
        yield f"    - {part.wanted}" + (f": {figure.said}" if figure.said else "")


def _target(target: Target, figures: list[Figure]) -> Iterator[str]:
    yield f"### {target.number}. {target.title} {{ #target-{target.number} }}"
    rows = [f"| {part.wanted} | {figure.said} | {figure.state} |" for part, figure in _pairs(target, figures)]
    yield "\n".join(["| wanted | reached | |", "|---|---|---|", *rows])
    lines = [f"- Held by {_held(target)}"]
    for part, figure in _pairs(target, figures):
        if reason := _reason(part, figure):
            lines.append(f"- {figure.state[0].upper() + figure.state[1:]}, *{part.wanted}*: {reason}")
    yield "\n".join(lines).replace("**missed**,", "**Missed**,")


def _pairs(target: Target, figures: list[Figure]) -> Iterator[tuple[Part, Figure]]:
    return zip(target.parts, figures, strict=True)


def _reason(part: Part, figure: Figure) -> str:
    """Return why a part is missed or not measured, or what there is to say of one that is met."""
    if figure.state == MET:
        return ""
    return figure.why or part.why or WHY


def _held(target: Target) -> str:
    tests = dict.fromkeys(f"`tests/{test}`" for part in target.parts for test in part.tests)
    measured = dict.fromkeys(filter(None, (_where(part.evidence) for part in target.parts)))
    harnesses = (f"the harness [`{name}`](chaos.md#{name})" for name in target.harnesses)
    return ", ".join([*tests, *measured, *harnesses]) or "nothing"


def _where(evidence: Evidence) -> str:
    """Return where a figure was measured; '' for what tests hold."""
    match evidence:
        case Measured(section=section):
            return f"`make bench ARGS={section}`"
        case Nearly(of=Said(where=where)) | Said(where=where):
            link = where.removeprefix("reference/") if where.startswith("reference/") else f"../{where}"
            return f"[{page(where).splitlines()[0].removeprefix('# ')}]({link})"
    return ""
