"""The reference page does what it says."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import Any

import pytest

from cachebus import CacheSettings
from tests.tradesense.conftest import TRADES, USERS, World
from tradesense import recording, views

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "domain.md").read_text()


async def test_every_block_runs_in_order(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The python blocks of the page run as one program, and what they wrote is in the database."""
    monkeypatch.setattr(views.cache, "_settings", CacheSettings(redis_enabled=False))
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names: dict[str, Any] = {}
    body = textwrap.indent("\n".join(blocks), "    ")
    exec(compile(f"async def page():\n{body}\n    return locals()\n", "domain.md", "exec"), names)  # noqa: S102 - our own page
    before = await recording.count_trades(7)
    async with views.cache:
        left = await names["page"]()
    assert (left["done"].users, left["done"].trades) == (USERS, TRADES)
    assert await recording.count_trades(7) == before + 2


def test_the_page_names_every_view_with_its_lifetime() -> None:
    """A view that is added or changed is added or changed there."""
    minutes = {"1 h": 60, **{f"{count} min": count for count in (1, 2, 5, 10)}}
    said = re.findall(r"^\| `(\w+)` \| [^|]+ \| (\d+ (?:min|h)) \|", PAGE, re.MULTILINE)
    declared = {view.__name__: view.policy.ttl_ms / 60_000 for view in views.cache.views.values()}
    assert {name: minutes[lifetime] for name, lifetime in said} == declared
