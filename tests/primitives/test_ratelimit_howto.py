"""The how-to page on rate limits runs as it stands."""

from __future__ import annotations

from asgi_browser import Browser
from howto_page import run_page

from cachebus.private_server import PrivateServer


async def test_the_page_runs(server: PrivateServer) -> None:
    """Every block works, one after the other, and what it builds answers requests."""
    left = await run_page("limit-a-rate.md", server.url)
    assert left["allowed"] is True
    assert left["seen"].remaining == 90
    answer = await Browser(left["app"]).get()
    assert '"all";q=300;w=60' in answer["ratelimit-policy"]
