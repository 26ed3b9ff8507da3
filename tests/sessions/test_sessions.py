"""Sessions as their users see them: what is stored, what comes back, what one call costs, what is refused."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from cachebus import Cache
from cachebus.errors import ConfigurationError, SessionsUnavailable
from cachebus.redis.client import Client
from cachebus.sessions.session import RESERVED, SessionConflict, TooManySessions
from cachebus.sessions.store import SessionStore
from cachebus.testing.server import PrivateCluster, PrivateServer
from tests.support.fake_server import fake_client
from tests.support.server_watch import WatchedServer
from tests.support.waiting import until


@pytest.fixture
def watched(client: Client) -> WatchedServer:
    client.store = WatchedServer(client.store)
    return client.store


@pytest.fixture
def store(client: Client, watched: WatchedServer) -> SessionStore:
    return SessionStore(client)


@pytest.fixture(params=["server", "process"])
async def either(request: pytest.FixtureRequest, client: Client) -> AsyncIterator[SessionStore]:
    """Sessions on a server, and those of a process without one."""
    async with Cache.memory() as cache:
        yield SessionStore(client if request.param == "server" else cache)


async def stored(client: Client) -> dict[bytes, bytes]:
    """Return every key of a test's namespace with its content as the server would dump it."""
    keys = await client.store.call("KEYS", f"{client.names.namespace}:*")
    return {key: await client.store.call("DUMP", key) for key in keys}


def unknown_id() -> str:
    """Return what looks like an id and was made by nobody."""
    return urlsafe_b64encode(secrets.token_bytes(48)).decode()


async def test_a_session_comes_back_as_it_was_made(either: SessionStore) -> None:
    """User, data, address and agent are read back with their types; the times are the server's."""
    data = {"cart": [1, {"n": 2.5}], "empty": [], "none": None, "text": 'ü "\n\t:', "big": 2**60}
    session_id = await either.create(7, data, ip="192.168.1.1", user_agent="Firefox")
    session = await either.get(session_id)
    assert session is not None
    assert (session.user_id, session.data, session.version) == (7, data, 1)
    assert (session.ip, session.user_agent) == ("192.168.1.1", "Firefox")
    assert session.created_at == session.last_seen_at
    assert session.expires_at == session.created_at + timedelta(minutes=30)


async def test_every_call_is_one_round_trip(client: Client, store: SessionStore, watched: WatchedServer) -> None:
    """Create, get, update, rotate, list, end one, end all but one, end all: one script each, on one slot."""
    session_id = await store.create(7)
    await store.get(session_id)
    await store.update(session_id, {"a": 1})
    session_id = await store.rotate(session_id) or ""
    await store.list_user(7)
    await store.invalidate_user(7, except_=session_id)
    await store.invalidate(session_id)
    await store.invalidate_user(7)
    verbs = [verb for verb, _ in watched.commands]
    expected = ("create", "read", "update", "rotate", "list", "end_all", "end", "end_all")
    assert verbs == [f"sessions/{verb}" for verb in expected]
    assert len({keys for _, keys in watched.commands}) == 1


async def test_a_read_writes_nothing(client: Client, store: SessionStore, watched: WatchedServer) -> None:
    """A thousand reads of one session within its minute leave the store as it was."""
    session_id = await store.create(7, {"a": 1})
    before = await stored(client)
    for _ in range(1000):
        await store.get(session_id, ip="10.0.0.1")
    assert await stored(client) == before


@pytest.mark.parametrize(
    "session_id",
    [
        "",
        "x",
        "a" * 63,
        "a" * 65,
        "a" * 100_000,
        "a" * 63 + "=",
        "a" * 63 + "\n",
        "ä" * 64,
        "../" * 21 + "a",
        "a:{b}*",
        b"a" * 64,
    ],
)
async def test_what_cannot_be_an_id_costs_no_command(
    store: SessionStore, watched: WatchedServer, session_id: str
) -> None:
    """Over-long or malformed ids are nobody's, and no key is made of them (starsessions takes any length)."""
    assert await store.get(session_id) is None
    assert await store.update(session_id, {"a": 1}) is None
    assert await store.rotate(session_id) is None
    assert await store.invalidate(session_id) is False
    assert watched.commands == []
    assert store.counts["malformed"] == 4


async def test_unknown_ids_write_nothing_and_are_counted(client: Client, store: SessionStore) -> None:
    """However many ids are guessed, nothing is stored, nothing adopted, and the guesses show in the counts."""
    for _ in range(300):
        guess = unknown_id()
        assert await store.get(guess) is None
        assert await store.update(guess, {"a": 1}) is None
        assert await store.rotate(guess) is None
        assert await store.invalidate(guess) is False
    assert await stored(client) == {}
    assert store.counts["unknown"] == 900


async def test_a_copy_of_the_store_holds_no_usable_id(client: Client, store: SessionStore) -> None:
    """Neither an id nor its secret is in any key; what is there opens nothing when it is sent as an id."""
    ids = [await store.create(user, {"n": user}) for user in range(200)]
    rotated = [await store.rotate(session_id) or "" for session_id in ids[:50]]
    dump = b"".join(key + content for key, content in (await stored(client)).items())
    for session_id in ids + rotated:
        raw = urlsafe_b64decode(session_id)
        for clue in (session_id.encode(), raw, raw[16:], raw[16:].hex().encode(), urlsafe_b64encode(raw[16:32])):
            assert clue not in dump
    refs = [session.ref for user in range(200) for session in await store.list_user(user)]
    assert len(refs) == 200
    for ref in refs:
        assert await store.get(ref) is None
        assert await store.get((ref * 2)[:64]) is None


async def test_a_piece_of_an_id_does_not_say_whose_it_is(either: SessionStore) -> None:
    """Two sessions of one user have no beginning in common: what a truncated log shows links nothing."""
    first, second = await either.create(7), await either.create(7)
    assert sum(a == b for a, b in zip(first, second, strict=True)) < 16


async def test_no_log_line_message_or_error_has_an_id(
    client: Client, store: SessionStore, caplog: pytest.LogCaptureFixture
) -> None:
    """Everything that happens to sessions is logged, by a digest from which nobody can make the id."""
    with caplog.at_level(logging.DEBUG):
        session_id = await store.create("alice", {"token": "hidden"}, ip="10.0.0.1")
        ids = [session_id, await store.rotate(session_id) or ""]
        session = await store.get(ids[1])
        await store.get(unknown := unknown_id())
        await store.invalidate(ids[1])
        with pytest.raises(ConfigurationError) as refused:
            await store.create("alice", {"user_id": 1})
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("cachebus")]
    assert [line.split(":")[0] for line in lines] == [
        f"session {e}" for e in ("created", "rotated", "unknown", "ended")
    ]
    told = "\n".join([*lines, repr(session), str(refused.value), repr(store.counts)])
    for secret in (*ids, unknown, "hidden"):
        assert secret not in told
        assert secret[:12] not in told


# -- changing data -----------------------------------------------------------------------------------------------------


async def test_writers_of_different_fields_lose_nothing(either: SessionStore) -> None:
    """Eight writers, each with its own field, a hundred times over each other: every last value is there."""
    session_id = await either.create(7, {"kept": True})

    async def write(name: str) -> None:
        for number in range(100):
            await either.update(session_id, {name: [name, number]})

    await asyncio.gather(*[write(f"f{number}") for number in range(8)])
    session = await either.get(session_id)
    assert session is not None
    assert session.data == {"kept": True} | {f"f{n}": [f"f{n}", 99] for n in range(8)}
    assert session.version == 801


async def test_of_writers_of_one_field_one_wins_or_is_told(either: SessionStore) -> None:
    """Without a version the last write stands; with one, only the first of those who read it may write."""
    session_id = await either.create(7, {"n": 0})
    await asyncio.gather(*[either.update(session_id, {"n": number}) for number in range(10)])
    session = await either.get(session_id)
    assert session is not None
    assert session.data["n"] in range(10)
    written = await asyncio.gather(
        *[either.update(session_id, {"n": 100 + n}, version=session.version) for n in range(5)], return_exceptions=True
    )
    assert sum(isinstance(one, SessionConflict) for one in written) == 4
    winner = next(one for one in written if not isinstance(one, BaseException) and one is not None)
    read = await either.get(session_id)
    assert read is not None
    assert read.data == winner.data


async def test_fields_are_replaced_and_removed_by_their_whole_name(either: SessionStore) -> None:
    """A name that begins like another, is quoted or empty touches only itself; what is removed is gone."""
    data: dict[str, Any] = {"a": 1, "ab": 2, 'a"': 3, 'a":1,"x': 4, "": 5, "A": 6, "ü\n": 7, "\t": 8}
    session_id = await either.create(7, data)
    for name in list(data):
        data[name] = {"new": name}
        changed = await either.update(session_id, {name: data[name]})
        assert changed is not None
        assert changed.data == data
    for name in list(data):
        del data[name]
        changed = await either.update(session_id, remove=[name, "never there"])
        assert changed is not None
        assert changed.data == data


async def test_reserved_fields_cannot_be_set_through_data(either: SessionStore) -> None:
    """`data` cannot say who the user is (TradeSense's `{"user_id": …, **data}` let it), neither at first nor later."""
    session_id = await either.create(7)
    for name in RESERVED:
        with pytest.raises(ConfigurationError, match=name):
            await either.create(7, {name: 666})
        with pytest.raises(ConfigurationError, match=name):
            await either.update(session_id, {name: 666})
    session = await either.get(session_id)
    assert session is not None
    assert (session.user_id, session.data) == (7, {})


async def test_only_json_is_stored(client: Client, store: SessionStore) -> None:
    """Whatever is not plain data is refused, so nothing that is read back can run code."""
    with pytest.raises(ConfigurationError, match="'handler' cannot be stored"):
        await store.create(7, {"handler": object()})
    with pytest.raises(ConfigurationError, match="is not a name"):
        await store.create(7, {1: "a"})  # type: ignore[dict-item]
    with pytest.raises(ConfigurationError, match="data: a list has no names"):
        await store.create(7, [1])  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="ip, user_agent: 5, None must be text"):
        await store.create(7, ip=5)  # type: ignore[arg-type]
    await store.create(7, {"a": [1, "b"]})
    (records,) = [key for key in await stored(client) if b":session:" in key]
    (record,) = await client.store.call("HVALS", records)
    assert [json.loads(line) for line in record.split(b"\n")[1:2]] == [7]
    assert record.endswith(b'\n"a"\t[1,"b"]')


async def test_a_session_is_no_place_for_large_things(either: SessionStore) -> None:
    """More than 64 KiB, or more than 200 fields at once, is refused with the bound, and changes nothing."""
    with pytest.raises(ConfigurationError, match="65,536 bytes"):
        await either.create(7, {"a": "x" * 70_000})
    session_id = await either.create(7, {"a": "x" * 40_000})
    with pytest.raises(ConfigurationError, match="65,536 bytes"):
        await either.update(session_id, {"b": "x" * 40_000})
    with pytest.raises(ConfigurationError, match="200 fields"):
        await either.update(session_id, dict.fromkeys(map(str, range(201))))
    session = await either.get(session_id)
    assert session is not None
    assert list(session.data) == ["a"]


async def test_what_somebody_else_wrote_there_is_no_session(client: Client, store: SessionStore) -> None:
    """A record that this library has not written is nobody's login: never an exception, never code."""
    session_id = await store.create(7)
    (records,) = [key for key in await stored(client) if b":session:" in key]
    (digest,) = await client.store.call("HKEYS", records)
    record = await client.store.call("HGET", records, digest)
    header = record.partition(b"\n")[0]
    for junk in (
        b"",
        b"\x80\x04cos\nsystem\n",
        b"1 2 3",
        b">",
        b"> x",
        b'{"user_id": 1}',
        header,
        header + b"\n[]\n\n",
    ):
        await client.store.call("HSET", records, digest, junk)
        assert await store.get(session_id) is None
        assert await store.list_user(7) == []
    for broken in (b'\n"a":', b"\nx", b"\n\xff:1"):
        await client.store.call("HSET", records, digest, record + broken)
        assert await store.get(session_id) is None
        assert await store.update(session_id, {"b": 1}) is None
    assert store.counts["unreadable"] > 0


# -- who may be whom ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("user_id", ["", None, True, 1.5, b"7", ["7"]])
async def test_a_user_id_is_a_number_or_a_text(either: SessionStore, user_id: Any) -> None:
    """What is neither is refused by name, wherever a user is named."""
    for call in (either.create, either.list_user, either.invalidate_user):
        with pytest.raises(ConfigurationError, match="user_id"):
            await call(user_id)


async def test_a_number_and_its_text_are_one_user(either: SessionStore) -> None:
    """Ending the sessions of "7" misses none of 7; each session keeps the type it was made with."""
    number, text = await either.create(7), await either.create("7")
    assert {session.user_id for session in await either.list_user(7)} == {7, "7"}
    assert await either.invalidate_user("7") == 2
    assert await either.get(number) is None
    assert await either.get(text) is None


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"idle": 0}, "idle"),
        ({"absolute": "x"}, "absolute"),
        ({"idle": "1d", "absolute": "1h"}, "longer than the absolute"),
        ({"max_per_user": 0}, "max_per_user"),
        ({"max_per_user": 10_000}, "max_per_user"),
        ({"when_full": "shrug"}, "evict_oldest, refuse"),
    ],
)
def test_a_store_that_cannot_work_is_refused_by_name(client: Client, options: dict[str, Any], says: str) -> None:
    """Each wrong option is a ValueError that names it, when the store is made."""
    with pytest.raises(ConfigurationError, match=says):
        SessionStore(client, **options)


# -- many sessions -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("when_full", ["evict_oldest", "refuse"])
@pytest.mark.usefixtures("watched")
async def test_parallel_logins_never_leave_more_than_the_cap(client: Client, when_full: Any) -> None:
    """Fifty logins at once with room for three leave three: the first three, or the last."""
    store = SessionStore(client, max_per_user=3, when_full=when_full)
    made = await asyncio.gather(*[store.create(7, {"n": n}) for n in range(50)], return_exceptions=True)
    live = [session.data["n"] for session in await store.list_user(7)]
    assert len(live) == 3
    refused = [one for one in made if isinstance(one, TooManySessions)]
    assert len(refused) == (47 if when_full == "refuse" else 0)
    assert sorted(live) == ([0, 1, 2] if when_full == "refuse" else [47, 48, 49])
    assert store.counts["refused" if when_full == "refuse" else "evicted"] == 47


async def test_a_cap_that_was_lowered_holds_from_the_next_login(client: Client) -> None:
    """A user with more sessions than now allowed keeps the newest."""
    for number in range(10):
        await SessionStore(client).create(7, {"n": number})
    await SessionStore(client, max_per_user=2).create(7, {"n": 10})
    assert {session.data["n"] for session in await SessionStore(client).list_user(7)} == {9, 10}


async def test_all_sessions_of_a_user_end_in_one_call_whatever_their_number(
    client: Client, store: SessionStore, watched: WatchedServer
) -> None:
    """One session and three thousand cost one script each, which deletes two keys; other users are untouched."""
    other, kept = await store.create(8), await store.create(7)
    ids = await asyncio.gather(*[store.create(7) for _ in range(3000)])
    watched.commands.clear()
    assert await store.invalidate_user(7, except_=kept) == 3000
    assert [verb for verb, _ in watched.commands] == ["sessions/end_all"]
    assert all([await store.get(session_id) is None for session_id in ids[::100]])
    assert await store.get(kept) is not None
    assert await store.invalidate_user(7) == 1
    assert await store.invalidate_user(7) == 0
    assert await store.get(other) is not None
    assert len(await stored(client)) == 2


async def test_ending_all_but_one_needs_that_one_to_be_the_users(either: SessionStore) -> None:
    """`except_` with somebody else's id, an ended one or junk keeps nothing."""
    others, mine = await either.create(8), await either.create(7)
    ended = await either.create(7)
    await either.invalidate(ended)
    for except_ in (others, ended, "junk"):
        session_id = await either.create(7)
        await either.invalidate_user(7, except_=except_)
        assert await either.get(session_id) is None
    assert await either.get(mine) is None
    assert await either.get(others) is not None


async def test_a_session_costs_little_memory(client: Client, store: SessionStore) -> None:
    """With 100 bytes of data a session takes at most 710 bytes, its place in the index included."""
    for user in range(20):
        await store.create(user, {"data": "x" * 90}, ip="192.168.100.100", user_agent="Mozilla/5.0 (X11; Linux)")
    used = [await client.store.call("MEMORY", "USAGE", key) for key in await stored(client)]
    assert sum(used) / 20 <= 710


# -- the server --------------------------------------------------------------------------------------------------------


async def test_an_outage_is_no_logout(caplog: pytest.LogCaptureFixture) -> None:
    """With the server away every call raises SessionsUnavailable; when it is back the session is still there."""
    with PrivateServer.start() as own:
        async with Client(own.url) as client:
            store = SessionStore(client)
            session_id = await store.create(7)
            own.pause()
            calls = [
                store.get(session_id),
                store.create(7),
                store.update(session_id, {"a": 1}),
                store.rotate(session_id),
                store.invalidate(session_id),
                store.invalidate_user(7),
                store.list_user(7),
                store.invalidate_everyone(),
            ]
            outcomes = await asyncio.gather(*calls, return_exceptions=True)
            assert [type(outcome) for outcome in outcomes] == [SessionsUnavailable] * len(calls)
            own.restart()

            async def still_there() -> bool:
                with contextlib.suppress(SessionsUnavailable):
                    return await store.get(session_id) is not None
                return False

            await until(still_there, "the session is there after the outage")


async def test_a_server_that_takes_no_writes_still_answers_reads() -> None:
    """Out of memory, a session whose activity is due to be noted is read all the same, and logging out works."""
    with PrivateServer.start("appendonly no") as own:
        async with Client(own.url) as client:
            store = SessionStore(client)
            session_id = await store.create(7)
            (records,) = [key for key in await stored(client) if b":session:" in key]
            digest, record = await client.store.call("HGETALL", records)
            version, created, seen, *rest = record.split(b" ")
            long_ago = b" ".join([version, created, b"%d" % (int(seen) - 120_000_000), *rest])
            await client.store.call("HSET", records, digest, long_ago)
            own.ask("CONFIG", "SET", "maxmemory", "1")
            session = await store.get(session_id)
            assert session is not None
            assert session.last_seen_at < session.created_at
            with pytest.raises(SessionsUnavailable):
                await store.create(7)
            assert await store.invalidate_user(7) == 1
            assert await store.get(session_id) is None


async def test_every_verb_runs_on_fakeredis() -> None:
    """Where no real server runs, development sees the same sessions."""
    store = SessionStore(fake_client(), max_per_user=2)
    ids = [await store.create(7, {"n": n}, ip="10.0.0.1") for n in range(3)]
    assert [await store.get(session_id) is not None for session_id in ids] == [False, True, True]
    new = await store.rotate(ids[2])
    updated = await store.update(ids[2], {"m": 1}, remove=["n"])
    assert updated is not None
    assert updated.data == {"m": 1}
    assert len(await store.list_user(7)) == 2
    assert await store.invalidate(ids[1])
    assert await store.invalidate_user(7, except_=new) == 0
    assert await store.invalidate_everyone() == 1
    assert await store.get(new) is None


async def test_a_cluster_serves_every_verb() -> None:
    """On three nodes, where a script whose keys lie apart is an error, users spread and everything works."""
    with PrivateCluster.start("appendonly no") as cluster:
        async with Client(cluster.url) as client:
            store = SessionStore(client, max_per_user=2)
            for user in range(30):
                session_id = await store.rotate(await store.create(user)) or ""
                assert await store.update(session_id, {"n": user}) is not None
                await store.create(user)
                await store.create(user)
                assert len(await store.list_user(user)) == 2
                assert await store.invalidate_user(user) == 2
                await store.create(user)
            assert min(node.ask("DBSIZE") for node in cluster.nodes) > 0
            assert await store.invalidate_everyone() == 30
            assert [node.ask("DBSIZE") for node in cluster.nodes] == [0, 0, 0]


async def test_a_session_answers_like_a_dict(either: SessionStore) -> None:
    """Fields of the data, and beside them what the store knows; the data's own field of a name comes first."""
    session = await either.get(await either.create(7, {"theme": "dark", "none": None}, ip="10.0.0.1"))
    assert session is not None
    assert (session["theme"], session["ip"], session["user_id"], session["none"]) == ("dark", "10.0.0.1", 7, None)
    assert session["created_at"] == session.created_at
    assert (session.get("theme"), session.get("cart", []), session.get("none", 1)) == ("dark", [], None)
    assert "theme" in session
    assert "ip" in session
    assert "cart" not in session
    for name in ("cart", "data", "session_id", "__class__"):
        with pytest.raises(KeyError, match=name):
            session[name]
    session = await either.get(await either.create(7, {"ip": "as given"}, ip="10.0.0.1"))
    assert session is not None
    assert (session["ip"], session.ip) == ("as given", "10.0.0.1")
