"""What the harnesses of `python -m tests.chaos` did in their last long run, for docs/reference/chaos.md.

Everything is read from `tests/chaos/run.json`, as `--json` keeps it: whoever replaces that file runs `make pages`.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import msgspec

from tests.chaos.__main__ import Result
from tests.chaos.harness import Harness
from tests.chaos.rounds import HARNESSES
from tests.support.topologies import TOPOLOGIES

RESULTS = Path(__file__).parents[1] / "chaos/run.json"
LONGEST = 160
"""Characters of a finding: what was lost is a list of thousands of numbers, of which the first ones say enough."""

_FROZEN = (
    "A fault, mended: a worker that was short of memory when it took a shard over could freeze while it started a"
    " thread; another thread went on renewing its lease."
)
_DEAF = (
    "A fault, mended: after a failover workers listened at the node that had been replaced, which hears with holes what"
    " is published. They took an event for a plain message, or named a plain message unlike the others."
)
_INFERRED = " Traced in `fleet`; that it was the same here is inferred."
_REPLAYED = (
    "The harness was wrong: it replayed a dead letter of the import after its window had closed, which rightly opens"
    " another one. Reproduced on purpose; that it was so in this round is inferred."
)
_ENDED = "The harness was wrong: it looked at a process that had ended by itself."
_LATE = "The machine, with a load of 10 to 18 on 2 cores: "

EXPLAINED = {
    ("bus", "one", 30, 38): _FROZEN,
    ("bus", "sentinel", 30, 30): _FROZEN,
    ("bus", "redis62", 30, 1): _FROZEN,
    ("bus", "redis7", 30, 1): _FROZEN,
    ("bus", "cluster", 30, 51): _DEAF + _INFERRED,
    ("bus", "cluster", 32, 41): _DEAF + _INFERRED,
    ("fleet", "cluster", 30, 24): _DEAF,
    ("fleet", "cluster", 32, 15): _DEAF,
    ("bus", "sentinel", 32, 33): f"{_LATE}Sentinel did not vote within a minute.",
    ("fleet", "sentinel", 30, 27): "A fault, mended: a look at the backlog left an error behind where the server went"
    " away in between.",
    ("fleet", "sentinel", 32, 8): f"{_LATE}a read is stale after 0.25 s, and this one was by 0.26 s.",
    ("later", "one", 30, 58): _REPLAYED,
    ("later", "sentinel", 30, 40): _REPLAYED,
    ("later", "redis62", 30, 23): _REPLAYED,
    (
        "later",
        "two-servers",
        30,
        29,
    ): "The harness was wrong: it told its first workers of one of the two servers only.",
    (
        "later",
        "redis62",
        30,
        18,
    ): f"{_LATE}the harness waited a quarter of a second for an answer, as an application does.",
    (
        "later",
        "redis8",
        30,
        14,
    ): f"{_LATE}the harness waited a quarter of a second for an answer, as an application does.",
    (
        "limits",
        "redis62",
        30,
        110,
    ): "A fault, mended: what Redis 6.2 refuses to a script for want of memory was not known"
    " as that, so nobody waited until there was some.",
    ("locks", "cluster", 30, 59): _ENDED,
    ("locks", "sentinel", 30, 79): _ENDED,
    ("locks", "tls", 30, 24): _ENDED,
}
"""Harness, topology, seed and rounds of a result → what its findings were. Of that result alone: the same words in
another run are another finding, and stay unexplained until somebody has looked."""

INTRODUCTION = """
What is promised is attacked by one tool: random faults under load, and checkers that trust nobody. This page is its
last long run, whole: what was done, what was injected, what was wrong, what was not injected and why.
"""
ONESELF = """
## How to run it

```sh
make programs                                                # Redis 7 and libfaketime, where they are to be used
.venv/bin/python -m tests.chaos --minutes 10                 # each harness on one node
.venv/bin/python -m tests.chaos --minutes 10 --only bus --topology cluster
.venv/bin/python -m tests.chaos --minutes 5 --topology all --json run.json
.venv/bin/python -m tests.chaos --break                      # with what holds the promise taken out: it must find it
```

It exits with 1 where something was wrong, or, with `--break`, where nothing was. `--seed` draws other moments. What the
machine lacks is said and not injected. This page is written from `tests/chaos/run.json` by `make pages`.
"""
FAULTS = """
## What befalls them

Processes are killed, stopped, refused memory, and have wall clocks that are up to an hour wrong and jump (libfaketime).
Servers are killed, refuse writes because `maxmemory` is reached, close connections, forget scripts, change their
passwords, swallow what is sent. Harnesses that need no server, and `credentials`, have one place.

- A server alone comes back with its append-only file. Where there is a replica it takes over, by Sentinel or the
  cluster's own vote, after the primary was killed. Writes wait before that until the replica has what was acknowledged.
  Only `freshness` is attacked with failovers that lose acknowledged writes, too: half of its failovers do.
- `fleet` runs `cachebus worker` as it is, and judges at once: events, their scopes in the ledger, reads in every
  application, and that an event became a dead letter only after two workers were lost that held its shard.
- An event whose handler was refused memory is retried, or becomes a dead letter that the harness replays. Its order is
  not judged.
"""


def results() -> list[Result]:
    """Return what the last long run found."""
    return msgspec.json.decode(RESULTS.read_bytes(), type=list[Result])


def explained(result: Result) -> str:
    """Return what the findings of a result were, if somebody has looked; else ''."""
    return EXPLAINED.get((result.name, result.topology, result.seed, result.rounds), "")


def open_findings(found: Iterable[Result]) -> int:
    """Return how many findings are neither explained nor what `--break` was to find."""
    return sum(len(result.wrong) for result in found if not result.without and not explained(result))


def chaos_page() -> str:
    """Return the page."""
    by_harness: dict[str, list[Result]] = defaultdict(list)
    for result in results():
        by_harness[result.name].append(result)
    shapes = (f"| `{name}` | {what} |" for name, what in TOPOLOGIES.items())
    parts = [
        "# What was attacked",
        "<!-- Written by `make pages`. -->",
        INTRODUCTION.strip(),
        _sum(results()),
        _table(
            "| harness | minutes | rounds | faults | wrong |",
            (_total(harness, by_harness[harness.name]) for harness in HARNESSES),
        ),
        ONESELF.strip(),
        FAULTS.strip(),
        _table("| topology | |", shapes),
    ]
    for harness in HARNESSES:
        parts += _section(harness, by_harness[harness.name])
    return "\n\n".join(parts) + "\n"


def _sum(found: Sequence[Result]) -> str:
    pairs = len({(each.name, each.topology) for each in found})
    wrong, unexplained = sum(len(each.wrong) for each in found if not each.without), open_findings(found)
    said = f"{wrong:,} findings, {unexplained:,} of them unexplained" if wrong else "nothing was wrong"
    seeds = ", ".join(map(str, sorted({each.seed for each in found})))
    return (
        f"**{_minutes(found)} minutes, {sum(each.rounds for each in found):,} rounds, {_faults(found):,} faults, on"
        f" {pairs} pairs of harness and topology (seed {seeds}): {said}.** A finding is what a checker, or a round that"
        " did not end as it should, had to say; each is named below."
    )


def _total(harness: Harness, found: Sequence[Result]) -> str:
    if not any(each.rounds for each in found):
        return f"| [{harness.name}](#{harness.name})| | | | not in this run |"
    wrong, unexplained = sum(len(each.wrong) for each in found if not each.without), open_findings(found)
    said = f"**{wrong:,}**" if unexplained else f"{wrong:,}, explained" if wrong else "0"
    done = f"{_minutes(found)} | {sum(each.rounds for each in found):,} | {_faults(found):,}"
    return f"| [{harness.name}](#{harness.name}) | {done} | {said} |"


def _section(harness: Harness, found: Sequence[Result]) -> Iterator[str]:
    yield f"## {harness.name}"
    yield f"**{harness.promise}** `--break` takes out {harness.without}."
    if found:
        yield _table("| on | rounds | minutes | wrong |", map(_row, found))
        yield "\n".join(f"- {_shape(each)}: {_listed(each.counts)}; faults: {_listed(each.faults)}" for each in found)
    if wrong := [line for result in found for line in _wrong(result)]:
        yield "Wrong:\n\n" + "\n".join(wrong)
    if lacking := [f"- on `{each.topology}`: {what}" for each in found for what in each.lacking]:
        yield "Not injected, for want of:\n\n" + "\n".join(lacking)
    ran = {each.topology for each in found if each.rounds}
    if missing := [f"`{shape}`" for shape in harness.topologies if shape not in ran]:
        yield f"Not in this run: {', '.join(missing)}."


def _row(result: Result) -> str:
    return f"| {_shape(result)} | {result.rounds:,} | {result.seconds / 60:.1f} | {len(result.wrong)} |"


def _listed(counts: dict[str, int]) -> str:
    """Return counts in words; names of faults have commas in them."""
    return " · ".join(f"{name} {count:,}" for name, count in counts.items()) or "none"


def _shape(result: Result) -> str:
    return f"`{result.topology}`" + (f", without {result.without}" if result.without else "")


def _wrong(result: Result) -> Iterator[str]:
    """Yield a line for each kind of finding: those that differ in numbers alone are one, with how often it was."""
    kinds = Counter(re.sub(r"\d+", "0", finding)[:LONGEST] for finding in result.wrong)
    for kind, times in kinds.items():
        first = next(each for each in result.wrong if re.sub(r"\d+", "0", each)[:LONGEST] == kind)
        text = " ".join(first.split())
        text = f"{text[:LONGEST]} …" if len(text) > LONGEST else text
        often = f"{times} ×, the first: " if times > 1 else ""
        why = explained(result) or ("As it should be." if result.without else "**Unexplained.**")
        yield f"- on `{result.topology}`, {result.rounds:,} rounds: {often}{_code(text)} {why}"


def _code(text: str) -> str:
    """Return text as code: what a finding says is never markup, backticks in it included."""
    fence = "`" * (max(map(len, re.findall("`+", text)), default=0) + 1)
    return f"{fence} {text} {fence}" if "`" in text else f"`{text}`"


def _table(head: str, rows: Iterable[str]) -> str:
    return "\n".join([head, re.sub(r"[^|]+", "---", head), *rows])


def _minutes(found: Iterable[Result]) -> str:
    return f"{sum(each.seconds for each in found) / 60:,.0f}"


def _faults(found: Iterable[Result]) -> int:
    return sum(sum(each.faults.values()) for each in found)
