"""What the pages of evidence say: figures are read, nothing is met that nothing shows, and no finding is hidden."""

from __future__ import annotations

import random
from pathlib import Path

import msgspec
import pytest

from tests.chaos.__main__ import Result
from tests.chaos.rounds import HARNESSES
from tests.docs import chaos
from tests.docs.targets import evidence
from tests.docs.targets.evidence import (
    MET,
    MISSED,
    NOT_MEASURED,
    Attacked,
    Figure,
    Gone,
    Row,
    Said,
    Shown,
    Wanted,
    at_most,
)
from tests.docs.targets.page import TARGETS
from tests.docs.test_site import exists

MEASURED = """
<!-- cache: written by make bench -->

| | found | wanted | |
|---|---|---|---|
| quick | 1.50 µs | ≤ 2 | met |
| slow | 2.50 µs | ≤ 2 | **missed** |

| | | | |
|---|---|---|---|
| plain | 1,250.00 | ms | the last waited 7 ms |

<!-- end of cache -->

Grew by 0.39 ± 0.22 MB/h.
"""


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page of measurements with three rows and a sentence."""
    monkeypatch.setattr(evidence, "page", lambda _: MEASURED)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Result]:
    """A long run of one harness, kept when it is asked for."""
    found = [Result("bus", "", 7, "", 3, 60.0, {"events": 900}, {"kill": 12}, [], "one", [])]
    path = tmp_path / "run.json"

    def results() -> list[Result]:
        path.write_bytes(msgspec.json.encode(found))
        return msgspec.json.decode(path.read_bytes(), type=list[Result])

    monkeypatch.setattr(chaos, "results", results)
    monkeypatch.setattr(evidence, "results", results)
    return found


def test_there_are_35_targets_and_each_part_says_what_shows_it() -> None:
    """Tests exist; what is exact names one; what falls short says why; who attacks is named."""
    assert [target.number for target in TARGETS] == list(range(1, 36))
    parts = [part for target in TARGETS for part in target.parts]
    assert [name for part in parts for name in part.tests if not exists(name)] == []
    assert [part.wanted for part in parts if isinstance(part.evidence, Shown) and not part.tests] == []
    silent = [
        part.wanted
        for part in parts
        if (figure := part.evidence.figure()).state == NOT_MEASURED and not (figure.why or part.why)
    ]
    assert silent == []
    harnesses = {harness.name for harness in HARNESSES}
    for target in TARGETS:
        attackers = {part.evidence.harness for part in target.parts if isinstance(part.evidence, Attacked)}
        assert attackers <= set(target.harnesses) <= harnesses, target.title


@pytest.mark.usefixtures("measured")
def test_a_figure_is_what_the_measurements_say() -> None:
    """Met and missed are those of the row, or of its value."""
    assert Wanted("cache", "quick", "≤ 2").figure() == Figure("1.50 µs", MET)
    assert Wanted("cache", "slow", "≤ 2").figure() == Figure("2.50 µs", MISSED)
    assert Row("cache", "plain", at_most(1250)).figure() == Figure("1,250.00 ms", MET)
    assert Row("cache", "plain", at_most(6), r"waited (\d+ ms)").figure() == Figure("7 ms", MISSED)
    grew = Said("any.md", r"Grew by ([\d.]+) ± ([\d.]+)", lambda found: found[0] <= 0.3, "{} ± {}")
    assert grew.figure() == Figure("0.39 ± 0.22", MISSED)


@pytest.mark.usefixtures("measured")
@pytest.mark.parametrize(
    "gone",
    [
        Wanted("cache", "quicker", "≤ 2"),
        Wanted("cache", "quick", "≤ 1"),
        Row("cache", "plainer", at_most(1)),
        Row("cache", "plain", at_most(1), r"waits (\d+ ms)"),
        Said("any.md", r"Shrank by ([\d.]+)", at_most(1), "{}"),
    ],
)
def test_a_label_that_is_gone_ends_the_writing(gone: Wanted | Row | Said) -> None:
    """So does a row that is held against something else than the target."""
    with pytest.raises(Gone):
        gone.figure()


@pytest.mark.usefixtures("measured")
def test_what_was_not_run_is_not_measured() -> None:
    """A section that nobody has written yet says which benchmark would."""
    figure = Wanted("gateway", "anything", "≤ 1").figure()
    assert (figure.state, "ARGS=gateway" in figure.why) == (NOT_MEASURED, True)


def test_an_attack_is_as_good_as_its_run(run: list[Result]) -> None:
    """Too short is not measured; a finding is a miss, until somebody has explained that very run."""
    assert Attacked("bus", "kill", 12).figure() == Figure("12 kill, 0 wrong", MET)
    assert Attacked("bus", "kill", 13).figure().state == NOT_MEASURED
    with pytest.raises(Gone):
        Attacked("bus", "kills", 1).figure()
    run[0].wrong.append("lost: [7]")
    assert Attacked("bus", "kill", 12).figure().state == MISSED


def test_an_explanation_is_of_one_run_alone(run: list[Result], monkeypatch: pytest.MonkeyPatch) -> None:
    """The same words in another run are another finding."""
    run[0].wrong.append("lost: [7]")
    monkeypatch.setattr(chaos, "EXPLAINED", {("bus", "one", 7, 3): "It was the harness."})
    assert "It was the harness." in chaos.chaos_page()
    run[0].seed = 8
    assert "It was the harness." not in chaos.chaos_page()
    assert "1 findings, 1 of them unexplained" in chaos.chaos_page()


def test_every_finding_is_on_the_page_and_does_not_break_it(run: list[Result]) -> None:
    """Those that differ in numbers alone are one line; none is wider, or another sign, than a page can take."""
    run[0].wrong = ["round 1: `a` | <b> 'c'", "round 2: `a` | <b> 'c'", "lost: " + "7, " * 5000, "two\nlines"]
    run[0].lacking = ["no redis-server"]
    page = chaos.chaos_page()
    assert "on `one`: no redis-server" in page
    section = page.partition("\n## bus\n")[2].partition("\n## ")[0]
    said = [line for line in section.splitlines() if line.endswith("**Unexplained.**")]
    assert "2 ×, the first: `` round 1: `a` | <b> 'c' ``" in said[0]
    assert ["`lost: 7, 7" in said[1], "`two lines`" in said[2], len(said)] == [True, True, 3]
    assert max(map(len, said)) < 300
    assert "Not in this run: `two-servers`" in section


def test_a_row_of_every_result_is_on_the_page(run: list[Result]) -> None:
    """However many pairs of harness and topology a run had."""
    draw = random.Random(1)  # noqa: S311 - made up
    run[:] = [
        Result(harness.name, "", 1, "", draw.randrange(1, 99), 60.0, {"done": 1}, {}, [], topology, [])
        for harness in HARNESSES
        for topology in harness.topologies
    ]
    page = chaos.chaos_page()
    assert page.count(" | 1.0 | 0 |\n") == page.count(": done 1; faults: none") == len(run) > 70
    assert "Not in this run" not in page
