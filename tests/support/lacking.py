"""What a machine may lack that a test needs: the test is skipped and says so, and fails where CI is to have it."""

from __future__ import annotations

import os
import shutil
from typing import NoReturn

import pytest


def program(name: str) -> str:
    """Return where a program is; skip where there is none."""
    return shutil.which(name) or lacking(f"{name} on this machine: make programs")


def lacking(what: str) -> NoReturn:
    """Skip this test, or fail it in CI."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI has no {what}")
    pytest.skip(f"no {what}")
