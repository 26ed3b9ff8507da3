"""A short form of the fuzzing: `python -m tests.fuzz` is the long one."""

from __future__ import annotations

import pytest

from tests.fuzz.__main__ import fuzz
from tests.fuzz.targets import TARGETS, Target


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_whatever_comes_is_decoded_or_refused(target: Target) -> None:
    """No error but the one that is meant for it, and nothing of another type."""
    assert fuzz(target, 1_000, 1) >= 1_000
