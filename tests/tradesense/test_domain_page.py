"""The reference page does what it says."""

from __future__ import annotations

import re
from pathlib import Path

from tests.support.pasted import Pasting
from tests.tradesense.conftest import TRADES, USERS, World
from tradesense import recording, views

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "domain.md").read_text()


async def test_every_block_runs_in_order(world: World, tmp_path: Path) -> None:
    """Each Python block of the page is a program, and what they wrote is in the database."""
    before, said = await recording.count_trades(7), ""
    with Pasting() as pasting:
        for block in re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL):
            said += pasting.run(block, tmp_path, DATABASE_URL=world.url, REDIS_ENABLED="false")
    assert f"{USERS} users, {TRADES:,} trades" in said
    assert await recording.count_trades(7) == before + 2


def test_the_page_names_every_view_with_its_lifetime() -> None:
    """A view that is added or changed is added or changed there."""
    minutes = {"1 h": 60, **{f"{count} min": count for count in (1, 2, 5, 10)}}
    said = re.findall(r"^\| `(\w+)` \| [^|]+ \| (\d+ (?:min|h)) \|", PAGE, re.MULTILINE)
    declared = {view.__name__: view.policy.ttl_ms / 60_000 for view in views.cache.views.values()}
    assert {name: minutes[lifetime] for name, lifetime in said} == declared
