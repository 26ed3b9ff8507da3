"""The how-to page on locks runs as it stands."""

from __future__ import annotations

from howto_page import PAGES, run_page

from cachebus import Cache, CacheSettings
from cachebus.private_server import PrivateServer
from cachebus.sync import SyncCache


async def test_the_page_runs(server: PrivateServer) -> None:
    """Every block works, one after the other."""
    left = await run_page("use-a-lock.md", server.url)
    assert left["seen"].owner == left["locks"].owner
    assert left["held"]["account:1"].released


def test_the_block_for_threads_runs(server: PrivateServer) -> None:
    """It is defined in the page and called here, where no loop runs."""
    cache = SyncCache(Cache(settings=CacheSettings(url=server.url, namespace="page")))
    names: dict[str, object] = {}
    text = (PAGES / "use-a-lock.md").read_text()
    block = next(part for part in text.split("```python\n") if part.startswith("import threading")).partition("```")[0]
    exec(compile(block, "use-a-lock.md", "exec"), names)  # noqa: S102 - our own page
    names["import_user"](cache)  # type: ignore[operator] # the page's function
    cache.close()
