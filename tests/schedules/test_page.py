"""The how-to page on schedules works as it stands."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

from cachebus.schedules.decorators import daily, every

PAGE = Path(__file__).parents[2] / "docs/howto/schedule-a-warm-up.md"


def test_the_page_names_every_option() -> None:
    """Each option of the decorators has its row, with the default that the code has."""
    rows = set(re.findall(r"^\| `(\w+)` \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE))
    assert rows == set(inspect.signature(every).parameters) - {"interval"}
    assert inspect.signature(every).parameters["misfire"].default == "skip"
    assert inspect.signature(daily).parameters["misfire"].default == "once"
