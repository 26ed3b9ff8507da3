"""A short form of the fault matrix: every fault once. `python -m tests.faults` runs it whole.

That it can fail: `tests/chaos/test_chaos.py`.
"""

from __future__ import annotations

from itertools import combinations, product

import pytest

from tests.faults.matrix import CHANGES, FAULTS, SHAPES, SHORT, Cell, cells, run

SEED = 1


def test_every_pair_is_there() -> None:
    """Each shape meets each change and each fault, and each change each fault, in at most 90 cells."""
    found = cells()
    assert len(found) <= 90
    lists = (SHAPES, CHANGES, tuple(FAULTS))
    for one, other in combinations(range(3), 2):
        assert {(cell[one], cell[other]) for cell in found} == set(product(lists[one], lists[other]))


@pytest.mark.parametrize(
    "cell", [cells()[(at + SEED) % len(SHAPES) * len(FAULTS) + at] for at in range(len(FAULTS))], ids=str
)
async def test_nobody_reads_what_is_stale(cell: Cell) -> None:
    """No read is older by more than 250 ms than an invalidation that had returned."""
    outcome = await run(cell, SHORT, seed=SEED)
    assert outcome.reads > 100
    assert (outcome.stale, outcome.changes >= SHORT.changes) == (0, True), outcome
