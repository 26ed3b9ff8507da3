"""A holder extends its lock; an operator takes one away from a holder that hangs."""

from __future__ import annotations

import asyncio

import pytest

from cachebus import Cache, CacheSettings, sync
from cachebus.errors import ConfigurationError, LockLost, LockUnavailable
from cachebus.locks.locks import Locks
from cachebus.monitoring.audit import Audit
from cachebus.redis.client import Client
from cachebus.testing.server import PrivateServer
from cachebus.worker.cli import main
from tests.support.waiting import until


@pytest.mark.parametrize("options", [{"renew": False}, {"max_hold": "1s"}, {}])
async def test_a_holder_extends_its_lock(locks: Locks, others: Locks, options: dict[str, object]) -> None:
    """Renewed or not: it lasts that long from now, for everyone to see, and is never shortened."""
    async with locks.lock("import", "500ms", **options) as held:  # type: ignore[arg-type] # one of lock's options
        await held.extend("10m")
        for timeout in ("10m", "1s"):
            await held.extend(timeout)
            seen = await others.holder("import")
            assert seen is not None
            assert 590 < held.remaining <= 600
            assert 590 < seen.remaining <= 601
        with pytest.raises(ConfigurationError, match="timeout: 0 must be at least 1 ms"):
            await held.extend(0)
    assert await others.holder("import") is None


async def test_what_is_not_held_is_not_extended(locks: Locks, others: Locks) -> None:
    """Released, or taken away: LockLost, and the lock stays somebody else's."""
    held = await locks.lock("a").acquire()
    await held.release()
    with pytest.raises(LockLost, match="was released"):
        await held.extend("1m")
    held = await locks.lock("b", renew=False).acquire()
    assert await others.unlock("b", held.token)
    async with others.lock("b"):
        with pytest.raises(LockLost):
            await held.extend("1m")
        seen = await locks.holder("b")
        assert seen is not None
        assert seen.owner == "them"


async def test_without_the_server_a_lock_is_held_as_long_as_before(own_server: PrivateServer) -> None:
    """Nobody knows whether it was extended: LockUnavailable, and the body goes on."""
    async with Client(own_server.url) as client:
        held = await Locks(client).lock("a", "1m").acquire()
        own_server.kill()
        with pytest.raises(LockUnavailable, match="lock 'a': it was not extended; it is held for as long as before"):
            await held.extend("10m")
        assert 0 < held.remaining <= 60


async def test_a_lock_is_taken_away_from_that_holder_alone(locks: Locks, others: Locks) -> None:
    """Whoever waits has it next, with a greater number; the holder's body ends; a second time nothing happens."""
    entered: list[int] = []

    async def wait_for_it() -> None:
        async with others.lock("import") as held:
            entered.append(held.token)

    assert not await others.unlock("import", 1)
    with pytest.raises(LockLost):  # noqa: PT012 - what the body meets is the point
        async with locks.lock("import", "3s") as held:
            waiting = asyncio.create_task(wait_for_it())
            await until(lambda: others.counts["waited"])
            assert not await others.unlock("import", held.token - 1)
            assert not entered
            assert await others.unlock("import", held.token)
            await asyncio.wait_for(asyncio.Event().wait(), 20)
    await waiting
    assert entered[0] > held.token
    assert not await others.unlock("import", held.token)


async def test_a_holder_that_listens_hears_at_once_that_its_lock_was_taken_away(locks: Locks, others: Locks) -> None:
    """Nobody waits for it; its next renewal would be twenty minutes from now."""
    async with others.lock("another"):
        waiting = asyncio.create_task(locks.lock("another").acquire())
        await until(lambda: locks.counts["waited"])
    await waiting
    with pytest.raises(LockLost):  # noqa: PT012 - what the body meets is the point
        async with locks.lock("import", "1h") as held:
            assert await others.unlock("import", held.token)
            await asyncio.wait_for(asyncio.Event().wait(), 20)


def test_the_command_says_who_holds_it_takes_it_away_and_notes_who_did(
    server: PrivateServer, namespace: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`cachebus unlock`: a dry run without --yes; 1 where nobody holds it. Written to the audit log before."""
    monkeypatch.setenv("REDIS_URL", server.url)
    monkeypatch.setenv("CACHE_NAMESPACE", namespace)
    with sync.Cache(Cache(settings=CacheSettings(url=server.url, namespace=namespace))) as cache:
        locks = sync.Locks(cache, owner="web-1:4711")
        held = locks.lock("import", "10m").acquire()
        assert main(["unlock", "import"]) == 0
        said = capsys.readouterr().out
        assert said.startswith(f"lock 'import': held by web-1:4711 (token {held.token}), 0 wait; ")
        assert said.endswith("nothing was done; add --yes to take it away\n")
        assert main(["unlock", "import", "--yes", "--name", "ann"]) == 0
        assert capsys.readouterr().out == f"lock 'import': taken away from web-1:4711 (token {held.token}), 0 wait\n"
        assert main(["unlock", "import", "--yes"]) == 1
        assert capsys.readouterr().out == "lock 'import': nobody holds it\n"
        (noted,) = cache.run(Audit(cache.cache.client).newest())
        assert (noted.who, noted.action, noted.target.split(" (")[0]) == ("ann", "unlock", "import, held by web-1:4711")
        with pytest.raises(LockLost):
            held.extend("1m")


def test_an_event_is_delayed_and_cancelled_by_command(
    server: PrivateServer, namespace: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`cachebus publish --delay`, `cachebus cancel`: 1 and one line the second time, or for a delay that cannot be."""
    monkeypatch.setenv("REDIS_URL", server.url)
    monkeypatch.setenv("CACHE_NAMESPACE", namespace)
    assert main(["publish", "orders", "{}", "--force", "--delay", "1h", "--id", "reminder"]) == 0
    assert main(["cancel", "reminder"]) == 0
    assert main(["cancel", "reminder"]) == 1
    assert main(["publish", "orders", "{}", "--force", "--delay=-1h"]) == 1
    said = capsys.readouterr()
    assert said.out == "reminder\nreminder will not be published\n"
    assert said.err.splitlines() == [
        "nothing was cancelled: id: no event waits under 'reminder': it was published, cancelled, or never delayed",
        "nothing was published: delay: '-1h' is in the past; leave it out to publish now",
    ]
