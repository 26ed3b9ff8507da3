"""A recording: begun by a key with a TTL, made by every process, in hashes, bounded, and over when nobody wants it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from cachebus import Cache, Client, ConfigurationError
from cachebus.cache.foresight import recording as form
from cachebus.cache.foresight.recorder import Recorder
from cachebus.cache.foresight.recording import Chunk, Recording, decode_chunk, from_file, numbers, to_file
from cachebus.errors import RecordingUnderWay
from cachebus.monitoring.advice.asking import Asking, progress
from cachebus.monitoring.advice.computing import Analysable, report_of
from cachebus.testing.server import PrivateServer
from tests.conftest import Connect
from tests.monitoring.test_page_history import reporter

VIEW = "page:{user_id}:{name}"
SECRETS = ("alice", "holiday")
"""What stands in arguments, keys and identities here, and must stand nowhere else."""


def declare(cache: Cache) -> Any:
    """Declare one view of a person."""

    @cache.view(VIEW, ttl="5m", tags=["user:{user_id}"])
    async def page(user_id: str, name: str) -> str:
        return f"{user_id} {name}"

    return page


def recorder(cache: Cache) -> Recorder:
    """Return what records for a connected cache."""
    assert cache._running is not None
    assert cache._running.recorder is not None
    return cache._running.recorder


async def flush(*caches: Cache) -> None:
    """Do what each process does every ten seconds."""
    for cache in caches:
        await reporter(cache).flush()


async def record(client: Client, until: Any, *caches: Cache, during: Callable[[], Any]) -> Recording:
    """Have everything recorded, as somebody who asks would."""
    asking = await Asking.begin(client, "1h", "a test", rate=1.0, settle_s=0.02)
    await flush(*caches)
    await asyncio.gather(*[until(lambda cache=cache: recorder(cache).is_recording) for cache in caches])
    await during()
    await flush(*caches)
    asking.wanted = msgspec.structs.replace(asking.wanted, until_us=client.now_us())
    return await asking.recorded()


def chunks(found: Recording) -> list[Chunk]:
    """Return what was sent."""
    return [decode_chunk(chunk) for chunk in found.chunks]


async def test_each_process_records_in_hashes(
    connect: Connect, client: Client, server: PrivateServer, namespace: str, until: Any
) -> None:
    """Hits, other reads, loads and invalidations of two processes; no key, argument or identity leaves them."""
    one, two = await connect(), await connect()
    pages = declare(one), declare(two)
    for page in pages:  # a process that has read nothing says nothing, and asks nothing
        await page("alice", "before")

    async def during() -> None:
        for page in pages:
            for _ in range(3):
                await page("alice", "holiday")
        await one.set("plain:alice", 1)
        await one.get("plain:alice")
        await one.invalidate(tags=["user:alice"])
        await pages[0]("alice", "holiday")
        await flush(one, two)
        names = [name for name in server.ask("KEYS", f"*{namespace}*") if b"recording" in name]
        assert len(names) == 2
        assert all(0 < server.ask("TTL", name) <= 1800 for name in names)
        lying = b"".join(server.ask("DUMP", name) for name in names)
        assert not any(secret.encode() in lying for secret in SECRETS)

    found = await record(client, until, one, two, during=during)
    parts = chunks(found)
    content = b"".join(repr(chunk).encode() for chunk in parts)
    content += msgspec.json.encode(report_of(Analysable(recording=found, at_ms=0.0, version="")))
    assert not any(secret.encode() in content for secret in SECRETS)
    keys = {key.key: key for chunk in parts for key in chunk.keys}
    hits = [key for chunk in parts for _, key in numbers(chunk.hits, 2)]
    reads = [row for chunk in parts for row in numbers(chunk.reads, 4)]
    loads = [row for chunk in parts for row in numbers(chunk.loads, 6)]
    assert len(keys) == 3
    assert len({key.identity for key in keys.values()} - {0}) == 1
    assert len(hits) == 2 + 2
    assert sorted(loaded for *_, loaded in reads) == [0, 0, 1, 1]
    assert len({key for _, key, _, _, _, _ in loads}) == 1
    assert len({value for *_, value, _ in loads}) == 1  # the same value as before: that invalidation was not needed
    assert sum(len(list(numbers(chunk.invalidations, 3))) for chunk in parts) >= 1
    assert sum(chunk.counted[VIEW].reads for chunk in parts) == 7
    assert sum(chunk.tags.get("user:{user_id}", 0) for chunk in parts) == 1
    assert any(list(numbers(chunk.held, 3)) for chunk in parts)
    assert await progress(client) is None
    assert server.ask("KEYS", f"*{namespace}*recording*") == []


async def test_nothing_is_recorded_that_nobody_wants(connect: Connect, client: Client, until: Any) -> None:
    """Who asked is killed: his key ends, and each process stops at its next report; watchers are gone."""
    cache = await connect()
    page = declare(cache)
    await page("alice", "holiday")
    await Asking.begin(client, "10m", "somebody killed", rate=1.0, settle_s=0.0)  # never renewed
    await flush(cache)
    await until(lambda: recorder(cache).is_recording)
    assert 0 < await client.store.call("PTTL", client.names.bus("recording")) <= 20_000
    assert len(page.watchers) == 1
    with pytest.raises(RecordingUnderWay, match="somebody killed is recording for another"):
        await Asking.begin(client, "10m", "another one")
    await page("alice", "holiday")
    await client.store.call("DEL", client.names.bus("recording"))  # what its TTL does
    await flush(cache)
    assert not recorder(cache).is_recording
    assert page.watchers == ()


async def test_what_another_version_wants_is_left_to_it(
    connect: Connect, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody here records; one line says why, and who asks meanwhile hears that somebody else does."""
    cache = await connect()
    page = declare(cache)
    recording = client.names.bus("recording")
    await client.store.call("HSET", recording, "wanted", '{"rows":1}', "bytes", 0, "sampled", 0)
    await client.store.call("EXPIRE", recording, 20)
    for _ in range(2):
        await page("alice", "holiday")
        await flush(cache)
    assert not recorder(cache).is_recording
    assert sum("cannot be read by this version" in message for message in caplog.messages) == 1
    assert await progress(client) is None
    with pytest.raises(RecordingUnderWay, match="another version of cachebus is recording"):
        await Asking.begin(client, "10m", "a test")


@pytest.mark.parametrize("rate", ["0", "-0.1", "1e-400", "1.5", "1e400"])
async def test_a_share_of_the_keys_that_is_none_records_nothing(
    connect: Connect, client: Client, caplog: pytest.LogCaptureFixture, rate: str
) -> None:
    """A foreign program asks for it: one line says why, and reads go on as before."""
    cache = await connect()
    page = declare(cache)
    await page("alice", "holiday")
    now_us, recording = client.now_us(), client.names.bus("recording")
    wanted = (
        f'{{"id":"1","secret":"{"00" * 16}","rate":{rate},'
        f'"from_us":{now_us},"until_us":{now_us + 60_000_000},"asked_by":"somebody"}}'
    )
    await client.store.call("HSET", recording, "wanted", wanted, "bytes", 0, "sampled", 0)
    await client.store.call("EXPIRE", recording, 20)
    await flush(cache)
    await asyncio.sleep(0)  # the timer that would begin is due at once
    assert await page("alice", "holiday") == "alice holiday"
    assert not recorder(cache).is_recording
    assert page.watchers == ()
    assert sum("cannot be read by this version" in message for message in caplog.messages) == 1


async def test_a_recording_has_a_bound(connect: Connect, client: Client, until: Any, monkeypatch: Any) -> None:
    """A process whose reads find no room counts them as lost."""
    monkeypatch.setattr("cachebus.cache.foresight.take.MOST_ROWS", 5)
    cache = await connect()
    page = declare(cache)
    await page("alice", "before")
    await Asking.begin(client, "10m", "a test", rate=1.0, settle_s=0.0)
    await flush(cache)
    await until(lambda: recorder(cache).is_recording)
    for _ in range(20):
        await page("alice", "holiday")
    take = recorder(cache)._take
    assert take is not None
    chunk, sampled = take.chunk("", 0)
    assert (sampled, len(chunk.hits) // 8, chunk.lost) == (6, 5, 14)
    take.close()
    await page("alice", "later")
    assert take.chunk("", 0)[0].counted[VIEW].reads == 0  # it was over by then


async def test_a_recording_that_is_full_ends(
    connect: Connect, client: Client, until: Any, monkeypatch: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """What has no room in Redis is left out, and the process does not begin again."""
    monkeypatch.setattr("cachebus.cache.foresight.recorder.MOST_BYTES", 10)
    cache = await connect()
    page = declare(cache)
    await page("alice", "before")
    asking = await Asking.begin(client, "10m", "a test", rate=1.0, settle_s=0.0)
    await flush(cache)
    await until(lambda: recorder(cache).is_recording)
    for _ in range(4):
        await page("alice", "holiday")
        await flush(cache)
        assert not recorder(cache).is_recording
        assert page.watchers == ()
    assert await client.store.call("EXISTS", client.names.bus("recording", asking.wanted.id)) == 0
    assert sum("recording: full" in message for message in caplog.messages) == 1


@pytest.mark.parametrize("duration", ["0", "0s", "tomorrow", "8d"])
async def test_a_bad_duration_is_named(client: Client, duration: str) -> None:
    """Before anything is begun."""
    with pytest.raises(ConfigurationError, match="for: "):
        await Asking.begin(client, duration, "a test")
    assert await progress(client) is None


def test_a_file_that_is_no_recording_is_named(monkeypatch: Any) -> None:
    """Empty, something else, cut short, of another version, damaged: one sentence each, with the fix."""
    wanted = form.Wanted(id="1", secret="00" * 16, rate=1.0, from_us=0, until_us=1, asked_by="a test")
    content = to_file(Recording(wanted, []))
    assert from_file(content).wanted.id == "1"
    assert from_file(content).wanted.secret == ""
    for bad, said in (
        (b"", "empty"),
        (b"PK\x03\x04", "not a recording"),
        (content[:-5], "cut short"),
        (content.replace(b"CBREC1", b"CBREC9"), "format 9, this version reads 1"),
        (content[:-1] + b"\xc1", "damaged"),
    ):
        with pytest.raises(ConfigurationError, match=said):
            from_file(bad)
    with pytest.raises(ConfigurationError, match="damaged"):
        decode_chunk(b"nothing")
