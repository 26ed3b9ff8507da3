"""The how-to page on sessions runs as it stands."""

from __future__ import annotations

from howto_page import run_page

from cachebus.asgi import SessionMiddleware
from cachebus.private_server import PrivateServer


async def test_the_page_runs(server: PrivateServer) -> None:
    """Every block works, one after the other."""
    left = await run_page("keep-sessions.md", server.url)
    assert isinstance(left["app"], SessionMiddleware)
    assert left["session"].user_id == 7
    assert left["session_id"] is not None
