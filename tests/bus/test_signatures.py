"""Signed events: what is refused, what is let through, and that keys can be changed."""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from cachebus.bus.dead_letters import DeadLetters
from cachebus.bus.effects import Broadcast, Effects, Publish
from cachebus.bus.engine.bridge import Bridge
from cachebus.bus.engine.consumer import Consumer, ConsumerOptions
from cachebus.bus.events import InvalidEvent
from cachebus.bus.handlers import on
from cachebus.bus.publisher import Bus
from cachebus.bus.signatures import Signatures
from cachebus.errors import ConfigurationError
from cachebus.redis.client import Client
from tests.support.serving import data, number, running

Until = Callable[..., Any]
OLD, NEW, FOREIGN = (f"whsec_{base64.b64encode(bytes([n]) * 32).decode()}" for n in range(3))


class Number(msgspec.Struct):
    n: int


@on("signed", Number)
def echo(event: Number) -> Effects:
    """Broadcast the number."""
    yield Broadcast("numbers", "n", event.n)


@on("open", Number)
def passes_on(event: Number) -> Effects:
    """Publish on the signed channel."""
    yield Publish("signed", event)


def required(*keys: str) -> Signatures:
    """Return signatures that the channel `signed` requires."""
    return Signatures(keys, {"signed": "require"})


async def handle(client: Client, until: Until, count: int, signatures: Signatures) -> Consumer:
    """Handle so many events."""
    consumer = Consumer(client, [echo, passes_on], options=ConsumerOptions(signatures=signatures))
    async with running(consumer):
        await until(lambda: consumer.stats.events == count)
    return consumer


async def test_an_unsigned_event_is_a_dead_letter_where_signatures_are_required(client: Client, until: Until) -> None:
    """Signed ones are handled, unsigned, foreign and moved ones are not; other channels are left alone."""
    await Bus(client, signatures=required(NEW)).publish("signed", Number(1))
    await Bus(client, signatures=required(FOREIGN)).publish("signed", Number(2))
    await Bus(client).publish("signed", Number(3))
    await Bus(client).publish("other", Number(4))
    consumer = await handle(client, until, 4, required(NEW, OLD))
    assert await data(client) == [1]
    assert [letter.reason for letter in await DeadLetters(client).list()] == [
        "signature: it was not made with a key that is known here, or not for this event",
        "signature: there is none",
    ]
    assert consumer.stats.handlers.skipped == 1


async def test_a_key_is_changed_without_losing_an_event(client: Client, until: Until) -> None:
    """Workers that know both accept publishers that are not there yet."""
    await Bus(client, signatures=required(OLD)).publish("signed", Number(1))
    await Bus(client, signatures=required(NEW)).publish("signed", Number(2))
    await handle(client, until, 2, required(NEW, OLD))
    assert await data(client) == [1, 2]


async def test_warn_lets_through_and_counts(client: Client, until: Until) -> None:
    """Before `require` one can see who does not sign yet."""
    await Bus(client).publish("signed", Number(1))
    consumer = await handle(client, until, 1, Signatures([NEW], {"sig*": "warn"}))
    assert await data(client) == [1]
    assert consumer.stats.handlers.unsigned == 1


async def test_what_a_handler_publishes_is_signed(client: Client, until: Until) -> None:
    """The commit signs, so a required channel takes it; retried and plain messages follow their own rules."""
    await Bus(client).publish("open", Number(1))
    await handle(client, until, 2, required(NEW))
    assert await data(client) == [1]


async def test_a_plain_message_cannot_be_signed(client: Client, until: Until) -> None:
    """On a channel that requires it, plain PUBLISH ends as a dead letter."""
    consumer, bridge = (
        Consumer(client, [echo], options=ConsumerOptions(signatures=required(NEW))),
        Bridge(client, [echo]),
    )
    async with running(consumer, bridge):
        await until(lambda: bridge.listening)
        await client.store.call("PUBLISH", "signed", number(1))
        await until(lambda: consumer.stats.handlers.dead_lettered == 1)
    assert await data(client) == []


async def test_another_language_signs_with_its_standard_library(client: Client, until: Until) -> None:
    """HMAC-SHA256 of `id.timestamp.channel.payload`, base64, after `v1,`; several may stand side by side."""
    payload, stamp = b'{"n":1}', int(time.time())
    key = base64.b64decode(NEW.removeprefix("whsec_"))
    digest = hmac.new(key, b"mine.%d.signed.%b" % (stamp, payload), hashlib.sha256).digest()
    signature = f"v1,bm9uc2Vuc2U= v1,{base64.b64encode(digest).decode()}"
    fields = ("channel", "signed", "payload", payload, "id", "mine", "timestamp", stamp, "signature", signature)
    await client.store.call("XADD", client.names.bus("events", "0"), "*", *fields)
    await handle(client, until, 1, required(OLD, NEW))
    assert await data(client) == [1]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({b"payload": b"{}"}, "not for this event"),
        ({b"channel": b"elsewhere"}, "not for this event"),
        ({b"id": b"other"}, "not for this event"),
        ({b"timestamp": b"1700000001"}, "not for this event"),
        ({b"timestamp": b"1700000400"}, "400 s from when"),
        ({b"timestamp": b"now"}, "timestamp"),
        ({b"signature": b"\xff\xfe"}, "not made with a key"),
        ({b"signature": b""}, "not made with a key"),
    ],
)
def test_whatever_is_changed_afterwards_is_noticed(change: dict[bytes, bytes], reason: str) -> None:
    """Payload, channel, id and time are all under the signature, and the time must be near."""
    signatures = required(NEW)
    name, value, signed, signature = signatures.sign("signed", "a", b"[]", 1_700_000_000)
    assert (name, signed) == ("timestamp", "signature")
    fields = {b"channel": b"signed", b"payload": b"[]", b"id": b"a"}
    fields |= {b"timestamp": str(value).encode(), b"signature": str(signature).encode()}
    signatures.check(fields, b"1700000000000-0")
    with pytest.raises(InvalidEvent, match=reason):
        signatures.check(fields | change, b"1700000000000-0")


@pytest.mark.parametrize(
    ("keys", "channels", "reason"),
    [
        (["not base64!"], {"a": "require"}, "key 1 is not base64"),
        ([NEW, "c2hvcnQ="], {"a": "require"}, "key 2 has 5 bytes"),
        ([], {"a": "require"}, "no key"),
        ([NEW], {"a": "sometimes"}, "sometimes"),
        ([NEW], {"*": "require"}, "channel"),
    ],
)
def test_settings_that_cannot_work_are_refused(keys: list[str], channels: Any, reason: str) -> None:
    """The error names the key by its number, never by its text."""
    with pytest.raises(ConfigurationError, match=reason) as refused:
        Signatures(keys, channels)
    assert NEW not in str(refused.value)
    assert "c2hvcnQ" not in str(refused.value)


async def test_retries_of_a_signed_event_are_not_refused(client: Client, until: Until) -> None:
    """It was checked when it came; the retries hold the payload without its signature."""
    seen: list[int] = []

    @on("signed", Number, backoff="1ms")
    def fails_once(event: Number) -> None:
        seen.append(event.n)
        if len(seen) == 1:
            raise RuntimeError

    await Bus(client, signatures=required(NEW)).publish("signed", Number(1))
    consumer = Consumer(client, [fails_once], options=ConsumerOptions(signatures=required(NEW)))
    async with running(consumer):
        await until(lambda: consumer.stats.handlers.handled == 1)
    assert seen == [1, 1]
