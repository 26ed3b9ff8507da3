"""The how-to page on pub/sub runs as it stands."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest
from howto_page import PAGES

from cachebus.private_server import PrivateServer


async def test_the_page_runs(
    server: PrivateServer, namespace: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its blocks as one module: the loop's half, then the one for threads."""
    monkeypatch.setenv("REDIS_URL", server.url)
    monkeypatch.setenv("CACHE_NAMESPACE", namespace)
    code = "\n".join(re.findall(r"```python\n(.*?)```", (PAGES / "use-pubsub.md").read_text(), re.DOTALL))
    names: dict[str, Any] = {}
    exec(compile(code, "use-pubsub.md", "exec"), names)  # noqa: S102 - our own page
    await names["main"]()
    await asyncio.to_thread(names["program"])
    said = capsys.readouterr().out
    assert "trade:updates {'user_id': 123, 'action': 'new_trade'}" in said
    assert "{'AAPL': 187.2}" in said
