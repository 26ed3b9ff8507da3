"""Logout, expiry and rotation against requests that are under way, from two processes' connections."""

from __future__ import annotations

import asyncio
import random

from cachebus.redis.client import Client
from cachebus.sessions.store import SessionStore
from cachebus.testing.server import PrivateServer
from tests.support.server_watch import WatchedServer


def patient(client: Client) -> Client:
    client.store = WatchedServer(client.store)
    return client


async def test_no_request_under_way_brings_a_session_back(server: PrivateServer, client: Client) -> None:
    """However logout and requests interleave, nothing of the session is left (starsessions, Django before 2016)."""
    draw = random.Random(1)  # noqa: S311 - a seed, not a secret
    async with Client(server.url, namespace=client.names.namespace) as other:
        here, there = SessionStore(patient(client), idle="1s"), SessionStore(patient(other), idle="1s")
        for number in range(250):
            session_id = await here.create(number, {"n": 0})

            async def request(store: SessionStore, session_id: str = session_id) -> None:
                await asyncio.sleep(0)
                if await store.get(session_id, ip="10.0.0.1") is not None:
                    await store.update(session_id, {"n": 1})
                await store.rotate(session_id)

            async def logout(session_id: str = session_id, number: int = number) -> None:
                for _ in range(draw.randrange(4)):
                    await asyncio.sleep(0)
                if number % 2:
                    await there.invalidate(session_id)
                else:
                    await there.invalidate_user(number)

            await asyncio.gather(*[request(here) for _ in range(4)], *[request(there) for _ in range(4)], logout())
            assert await here.get(session_id) is None
            assert await there.list_user(number) == []
    assert await client.store.call("KEYS", f"{client.names.namespace}:session*") == []


async def test_a_late_update_leaves_no_half_session(client: Client) -> None:
    """A write after the logout changes nothing at all: no key, no field, no entry in the index."""
    store = SessionStore(client)
    kept, ended = await store.create(7), await store.create(7)
    await store.invalidate(ended)

    async def dump() -> list[bytes]:
        keys = await client.store.call("KEYS", f"{client.names.namespace}:session*")
        return [await client.store.call("DUMP", key) for key in sorted(keys)]

    before = await dump()
    assert await store.update(ended, {"cart": [1]}) is None
    assert await store.get(ended, ip="10.0.0.1") is None
    assert await store.rotate(ended) is None
    assert await dump() == before
    assert await store.get(kept) is not None


async def test_a_rotation_logs_out_no_request_under_way(server: PrivateServer, client: Client) -> None:
    """Fifty requests with the old cookie, while it is rotated from two processes, are all served; one rotation wins."""
    async with Client(server.url, namespace=client.names.namespace) as other:
        stores = SessionStore(patient(client)), SessionStore(patient(other))
        for _ in range(20):
            old = await stores[0].create(7)
            reads = [stores[n % 2].get(old) for n in range(50)]
            rotations = [stores[n % 2].rotate(old) for n in range(4)]
            both = [pair for pairs in zip(reads[::13], rotations, strict=True) for pair in pairs]
            results = await asyncio.gather(*reads[1:13], *both, *reads[14:26], *reads[27:39], *reads[40:])
            new_ids = [result for result in results if isinstance(result, str)]
            assert len(new_ids) == 1
            assert sum(result is None for result in results) == 3
            assert await stores[1].get(new_ids[0]) is not None


async def test_a_revocation_is_in_force_everywhere_when_it_returns(server: PrivateServer, client: Client) -> None:
    """No process serves a session that another has ended, not even once: nothing is kept in a process."""
    async with Client(server.url, namespace=client.names.namespace) as other:
        here, there = SessionStore(patient(client)), SessionStore(patient(other))
        for number in range(50):
            session_id = await here.create(number)
            assert await there.get(session_id) is not None
            await here.invalidate_user(number)
            assert await there.get(session_id) is None
