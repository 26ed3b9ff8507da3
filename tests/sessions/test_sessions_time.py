"""Timeouts, rotation, activity and the index over hours, on a server clock that the test sets."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import pytest

from cachebus import Cache
from cachebus.errors import ConfigurationError
from cachebus.redis.client import Client
from cachebus.sessions.local_backend import LocalSessions
from cachebus.sessions.store import SessionStore
from tests.support.server_clock import ClockedServer

SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE


class SettableClock(Protocol):
    """The time by which sessions live, in microseconds."""

    now_us: int


@dataclass
class ProcessClock:
    """That of a process without a server."""

    now_us: int = 1_800_000_000_000_000


@pytest.fixture
def server_clock(client: Client) -> ClockedServer:
    client.store = ClockedServer(client.store, client.names.namespace)
    return client.store


@pytest.fixture(params=["server", "process"])
def clock(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> SettableClock:
    """The clock of a server, and that of a process without one."""
    if request.param == "server":
        clocked: ClockedServer = request.getfixturevalue("server_clock")
        return clocked
    clock = ProcessClock()
    monkeypatch.setattr(LocalSessions, "_now_us", lambda _: clock.now_us)
    return clock


@pytest.fixture
async def store(client: Client, clock: SettableClock) -> AsyncIterator[SessionStore]:
    """Sessions that live by that clock."""
    async with Cache.memory() as cache:
        yield SessionStore(client if isinstance(clock, ClockedServer) else cache)


@pytest.fixture
def server_store(client: Client, server_clock: ClockedServer) -> SessionStore:
    """Sessions on a server, whose keys a test looks at."""
    return SessionStore(client)


def us(moment: datetime) -> int:
    return round(moment.timestamp() * SECOND)


async def lives_us(client: Client) -> dict[str, int]:
    """Return how long the server keeps each key; its own clock goes on while the test's stands."""
    keys = await client.store.call("KEYS", f"{client.names.namespace}:session*")
    return {key.decode().split(":")[1]: 1000 * await client.store.call("PTTL", key) for key in keys}


# -- timeouts ---------------------------------------------------------------------------------------------------------


async def test_an_unused_session_ends_after_its_idle_timeout(store: SessionStore, clock: SettableClock) -> None:
    """A microsecond before thirty minutes it is there, then it is not, for any call, and no read brings it back."""
    for call in (store.get, store.update, store.rotate, store.invalidate):
        session_id = await store.create(7)
        clock.now_us += 30 * MINUTE
        assert not await call(session_id)
    session_id = await store.create(7)
    clock.now_us += 30 * MINUTE - 1
    session = await store.get(session_id)
    assert session is not None
    assert us(session.expires_at) == clock.now_us + 30 * MINUTE


async def test_a_used_session_ends_at_its_absolute_timeout(store: SessionStore, clock: SettableClock) -> None:
    """Used every minute, it still ends twelve hours after the login, and is never promised to live longer."""
    session_id = await store.create(7)
    end = clock.now_us + 12 * HOUR
    while clock.now_us < end:
        session = await store.get(session_id)
        assert session is not None
        assert us(session.expires_at) <= end
        clock.now_us += MINUTE
    assert await store.get(session_id) is None


async def test_a_session_may_have_timeouts_of_its_own(store: SessionStore, clock: SettableClock) -> None:
    """ "Remember me" outlives the store's timeouts; a brief session ends before them. Neither changes the other."""
    long, brief = await store.create(7, idle="30d", absolute="90d"), await store.create(7, idle="2m")
    clock.now_us += 2 * MINUTE
    assert await store.get(brief) is None
    clock.now_us += 29 * 24 * HOUR
    assert await store.get(long) is not None


async def test_no_clock_of_a_process_matters(
    client: Client, server_clock: ClockedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process whose clocks are an hour off makes and reads the same sessions as any other."""
    session_id = await SessionStore(client).create(7)
    monkeypatch.setattr("time.time", lambda: 0.0)
    monkeypatch.setattr("time.monotonic", lambda: 1e9)
    session = await SessionStore(client).get(session_id)
    assert session is not None
    assert us(session.created_at) == server_clock.now_us


async def test_keys_live_as_long_as_the_longest_session_and_no_longer(
    client: Client, server_store: SessionStore, server_clock: ClockedServer
) -> None:
    """A short login after a long one shortens nothing (crudauth: "log out everywhere" then misses the long one)."""
    await server_store.create(7, idle="30d", absolute="30d")
    brief = await server_store.create(7, idle="30m")
    end = server_clock.now_us + 30 * 24 * HOUR
    for _ in range(2):
        for life in (await lives_us(client)).values():
            assert end - server_clock.now_us - 30 * SECOND <= life <= end - server_clock.now_us + SECOND
        server_clock.now_us += SECOND
        await server_store.invalidate(brief)
    assert await server_store.invalidate_user(7) == 1
    assert await lives_us(client) == {}
    await server_store.create(7, idle="30m")
    assert all(0 < life <= 30 * MINUTE + SECOND for life in (await lives_us(client)).values())


# -- activity ----------------------------------------------------------------------------------------------------------


async def test_activity_is_noted_once_a_minute_with_where_it_came_from(
    store: SessionStore, clock: SettableClock
) -> None:
    """In one minute the first read that is a minute late writes; address and agent follow it, others stay."""
    start = clock.now_us
    session_id = await store.create(7, ip="10.0.0.1", user_agent="Firefox")
    for seconds, seen, ip in ((59, 0, "10.0.0.1"), (60, 60, "10.0.0.2"), (61, 60, "10.0.0.2"), (125, 125, "10.0.0.2")):
        clock.now_us = start + seconds * SECOND
        await store.get(session_id, ip="10.0.0.2")
        (listed,) = await store.list_user(7)
        assert us(listed.last_seen_at) - start == seen * SECOND
        assert (listed.ip, listed.user_agent) == (ip, "Firefox")


async def test_a_short_idle_timeout_is_watched_more_closely(store: SessionStore, clock: SettableClock) -> None:
    """With two minutes of idle timeout activity is noted every twelve seconds: who is active is not thrown out."""
    session_id = await store.create(7, idle="2m")
    for _ in range(30):
        clock.now_us += 100 * SECOND
        assert await store.get(session_id) is not None


async def test_a_change_of_address_is_told_not_punished(store: SessionStore, clock: SettableClock) -> None:
    """The session goes on, says what differs, is counted once when noted, and knows the new place afterwards."""
    session_id = await store.create(7, ip="10.0.0.1", user_agent="Firefox")
    clock.now_us += MINUTE
    moved = await store.get(session_id, ip="172.16.0.9", user_agent="Firefox")
    assert moved is not None
    assert (moved.changed, moved.ip) == (frozenset({"ip"}), "172.16.0.9")
    settled = await store.get(session_id, ip="172.16.0.9", user_agent="Firefox")
    assert settled is not None
    assert settled.changed == frozenset()
    assert store.counts["changed"] == 1
    unsaid = await store.get(session_id)
    assert unsaid is not None
    assert (unsaid.changed, unsaid.ip) == (frozenset(), "172.16.0.9")
    first = await store.get(await store.create(7), ip="10.0.0.1")
    assert first is not None
    assert first.changed == frozenset()


# -- rotation ----------------------------------------------------------------------------------------------------------


async def test_a_rotated_id_works_ten_seconds_more_and_then_never(store: SessionStore, clock: SettableClock) -> None:
    """In the overlap both ids are one session; after it only the new one is, however active the old one was."""
    old = await store.create(7, {"n": 0})
    new = await store.rotate(old)
    assert new is not None
    clock.now_us += 10 * SECOND - 1
    updated = await store.update(old, {"n": 1})
    assert updated is not None
    assert updated == await store.get(new) == await store.get(old)
    clock.now_us += 1
    for call in (store.get, store.update, store.rotate, store.invalidate):
        assert not await call(old)
    assert await store.get(new) is not None


async def test_an_id_that_was_rotated_is_not_rotated_again(store: SessionStore) -> None:
    """Of requests that rotate together one gets a new id; the others set no cookie, so none undoes the first one's."""
    old = await store.create(7)
    new = await store.rotate(old)
    assert await store.rotate(old) is None
    assert await store.get(new) is not None
    assert len(await store.list_user(7)) == 1


async def test_ids_rotated_in_a_row_all_lead_to_the_session_while_they_may(
    store: SessionStore, clock: SettableClock
) -> None:
    """A request that left three rotations ago, seconds before, is still served; each old id has its own ten seconds."""
    ids = [await store.create(7)]
    for _ in range(3):
        ids.append(await store.rotate(ids[-1]) or "")
        clock.now_us += 3 * SECOND
    assert [await store.get(session_id) is not None for session_id in ids] == [True] * 4
    clock.now_us += SECOND
    assert [await store.get(session_id) is not None for session_id in ids] == [False, True, True, True]


async def test_a_change_of_rights_leaves_no_overlap(store: SessionStore) -> None:
    """Rotated without overlap, the old id is dead at once: who planted it has nothing."""
    old = await store.create(7)
    new = await store.rotate(old, overlap=None)
    assert await store.get(old) is None
    assert await store.get(new) is not None
    with pytest.raises(ConfigurationError, match="more than 10 s"):
        await store.rotate(new, overlap="11s")


async def test_logging_out_with_the_old_id_ends_the_session(client: Client, server_store: SessionStore) -> None:
    """A logout that was under way while the id was rotated ends the session, not only its old name; nothing is left."""
    old = await server_store.create(7)
    new = await server_store.rotate(old)
    assert await server_store.invalidate(old) is True
    assert await server_store.get(new) is None
    assert await server_store.get(old) is None
    assert await lives_us(client) == {}


async def test_a_rotation_keeps_what_the_session_is(store: SessionStore, clock: SettableClock) -> None:
    """Data, login time and absolute end stay; rotating for ever does not live for ever."""
    session_id = await store.create(7, {"a": 1}, ip="10.0.0.1")
    start = clock.now_us
    for minutes in range(0, 720, 20):
        session = await store.get(session_id)
        assert session is not None
        assert (session.data, session.ip, us(session.created_at)) == ({"a": 1}, "10.0.0.1", start)
        session_id = await store.rotate(session_id) or ""
        clock.now_us = start + (minutes + 20) * MINUTE
    assert await store.get(session_id) is None


async def test_dead_names_of_a_session_are_swept(
    client: Client, server_store: SessionStore, server_clock: ClockedServer
) -> None:
    """A session rotated a thousand times takes no more room than one: its old names go with the next writes."""
    session_id = await server_store.create(7)
    for _ in range(1000):
        session_id = await server_store.rotate(session_id) or ""
        server_clock.now_us += SECOND
    sizes = [
        await client.store.call("HLEN" if b":session:" in key else "ZCARD", key)
        for key in await client.store.call("KEYS", f"{client.names.namespace}:session*")
    ]
    assert sizes == [11, 11]  # itself and the last ten seconds' names


# -- the index ---------------------------------------------------------------------------------------------------------


@dataclass
class Known:
    """What must be true of one session."""

    user: int
    ids: list[tuple[str, int]]
    """Every id it had, and until when that one works; 0: it is the present one."""
    seen: int
    idle: int
    last: int

    @property
    def ends(self) -> int:
        return min(self.seen + self.idle, self.last)


class Life:
    """Random logins, reads, changes, rotations and logouts of a few users, beside a list of what must be true."""

    def __init__(self, store: SessionStore, clock: SettableClock) -> None:
        self.store, self.clock = store, clock
        self.draw = random.Random(7)  # noqa: S311 - a seed, not a secret
        self.known: list[Known] = []

    def living(self, user: int) -> list[Known]:
        return [one for one in self.known if one.user == user and one.ends > self.clock.now_us]

    async def create(self) -> None:
        user, (idle, absolute) = self.draw.randrange(4), self.draw.choice([(2, 60), (30, 720), (60, 90), (5, 5)])
        session_id = await self.store.create(user, idle=60 * idle, absolute=60 * absolute)
        now = self.clock.now_us
        self.known.append(Known(user, [(session_id, 0)], now, idle * MINUTE, now + absolute * MINUTE))

    async def read(self) -> None:
        one, session_id, alive, _ = self.pick()
        assert (await self.store.get(session_id) is not None) == alive
        if alive and one.seen + min(MINUTE, one.idle // 10) <= self.clock.now_us:
            one.seen = self.clock.now_us

    async def update(self) -> None:
        one, session_id, alive, _ = self.pick()
        assert (await self.store.update(session_id, {"n": 1}) is not None) == alive
        if alive:
            one.seen = self.clock.now_us

    async def rotate(self) -> None:
        one, session_id, alive, is_old = self.pick()
        new_id = await self.store.rotate(session_id)
        assert (new_id is not None) == (alive and not is_old)
        if new_id is not None:
            one.ids[-1:] = [(session_id, self.clock.now_us + 10 * SECOND), (new_id, 0)]
            one.seen = self.clock.now_us

    async def end(self) -> None:
        one, session_id, alive, _ = self.pick()
        assert await self.store.invalidate(session_id) == alive
        if alive:
            one.last = 0

    async def end_all(self) -> None:
        user = self.draw.randrange(4)
        assert await self.store.invalidate_user(user) == len(self.living(user))
        for one in self.living(user):
            one.last = 0

    async def lists_agree(self, user: int) -> None:
        listed = [us(session.expires_at) for session in await self.store.list_user(user)]
        assert sorted(listed) == sorted(one.ends for one in self.living(user))

    def pick(self) -> tuple[Known, str, bool, bool]:
        one = self.draw.choice(self.known[-40:])
        session_id, until = self.draw.choice(one.ids[-4:])
        works = until == 0 or until > self.clock.now_us
        return one, session_id, works and one.ends > self.clock.now_us, until > 0


async def test_the_index_never_lists_the_dead_nor_misses_the_living(
    client: Client, store: SessionStore, clock: SettableClock
) -> None:
    """After thousands of random logins, reads, rotations, logouts and expiries every list, count and id agrees."""
    life = Life(store, clock)
    await life.create()
    actions = [life.create, life.read, life.read, life.update, life.rotate, life.end]
    for step in range(2000):
        clock.now_us += life.draw.choice([0, 1, SECOND, 5 * SECOND, MINUTE, 20 * MINUTE * (step % 50 == 0)])
        await life.draw.choice([life.end_all] if step % 100 == 99 else actions)()
        await life.lists_agree(step % 4)
    assert len(life.known) > 250
    assert any(life.living(user) for user in range(4))
    clock.now_us += 24 * HOUR
    assert [await store.list_user(user) for user in range(4)] == [[]] * 4
    assert min((await lives_us(client)).values(), default=1) > 0


async def test_one_session_of_a_list_can_be_ended(store: SessionStore) -> None:
    """A user who sees a session he does not know ends that one, by the name the list gives it, and no other."""
    ids = [await store.create(7, ip=f"10.0.0.{n}") for n in range(3)]
    stranger = next(session for session in await store.list_user(7) if session.ip == "10.0.0.1")
    assert await store.revoke(8, stranger.ref) is False
    assert await store.revoke(7, stranger.ref) is True
    assert await store.revoke(7, stranger.ref) is False
    assert [await store.get(session_id) is not None for session_id in ids] == [True, False, True]


async def test_a_list_begins_with_who_was_seen_last(store: SessionStore, clock: SettableClock) -> None:
    """The session in use stands first."""
    ids = []
    for n in range(3):
        ids.append(await store.create(7, {"n": n}))
        clock.now_us += MINUTE
    await store.get(ids[1])
    assert [session.data["n"] for session in await store.list_user(7)] == [1, 2, 0]
