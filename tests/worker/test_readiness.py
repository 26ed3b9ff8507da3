"""A stop while the application's own check is under way."""

from __future__ import annotations

import asyncio

import pytest

from cachebus.worker.health.readiness import Readiness


async def test_a_stop_lets_a_check_under_way_end() -> None:
    """A driver that is cancelled while it connects leaves its connection open."""
    begun, answer, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def check() -> None:
        begun.set()
        await answer.wait()
        ended.set()

    running = asyncio.create_task(Readiness(check).run())
    await begun.wait()
    running.cancel()
    asyncio.get_running_loop().call_later(0.02, answer.set)
    with pytest.raises(asyncio.CancelledError):
        await running
    assert ended.is_set()


async def test_a_stop_does_not_wait_for_a_check_that_never_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is cancelled after a moment."""
    monkeypatch.setattr("cachebus.worker.health.readiness.LEAVE_S", 0.01)
    begun, cancelled = asyncio.Event(), asyncio.Event()

    async def check() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    running = asyncio.create_task(Readiness(check).run())
    await begun.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await cancelled.wait()
