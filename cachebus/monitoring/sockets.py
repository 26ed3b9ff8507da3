"""The open sockets of a deployment: gateways keep theirs in memory, and tell them to whoever asks.

The question goes to one channel, each answer to a channel that the question names. Nothing is stored, and while nobody
asks nothing is sent.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Callable
from contextlib import suppress

import msgspec

from cachebus.errors import ServerError
from cachebus.monitoring.history import History
from cachebus.redis.client import Client

ANSWER_S = 1.0
"""How long a gateway may take to answer; one that does not is named with what it last reported."""
MOST_TOLD = 500
"""Sockets in one answer: a quarter of a megabyte of pub/sub, which Redis holds for whoever asked."""
TOPICS_TOLD = 20
MOST_ASKED = 20
"""Questions that wait; more at once are not answered."""
_TOKEN = re.compile(r"[0-9a-f]{24}")


class OpenSocket(msgspec.Struct, frozen=True):
    """One browser that has said hello."""

    user: str
    topics: list[str]
    """At most twenty of them, by name."""
    more_topics: int
    queued: int
    """Messages that wait to be sent to it."""
    last: str
    """The id of the last message it was sent, or of where it began."""
    since_ms: int
    """Since when, ms since 1970."""


class SocketsAsked(msgspec.Struct, frozen=True):
    """What gateways are asked."""

    token: str
    """Names the channel of the answers."""
    user: str = ""
    """Only the sockets of this user."""
    close: bool = False
    """Close them."""


class SocketsTold(msgspec.Struct, frozen=True):
    """What one gateway says."""

    process: str
    sockets: int
    """All it has, with those that have not said hello."""
    open: list[OpenSocket]
    """Those asked for, the newest first, at most 500."""


class GatewaySockets(msgspec.Struct, frozen=True):
    """One gateway: its answer, or what it last reported."""

    process: str
    sockets: int
    answered: bool
    reported_ms_ago: int
    """0 where it answered."""
    open: list[OpenSocket]


async def tell_sockets(
    client: Client, answer: Callable[[str], SocketsTold], close: Callable[[str], object] = lambda _: None
) -> None:
    """Answer until cancelled. *answer* gets the user whose sockets are asked for, '' for everybody's; so does *close*.

    What is closed is told as it was before.
    """
    async with client.subscriptions.requests(client.names.bus("sockets"), MOST_ASKED) as asked:
        while True:
            payload = await asked.get()
            with suppress(msgspec.DecodeError, ServerError):  # anybody may publish there; who asks asks again
                question = msgspec.json.decode(payload, type=SocketsAsked)
                if _TOKEN.fullmatch(question.token):
                    told = msgspec.json.encode(answer(question.user))
                    if question.close and question.user:
                        close(question.user)
                    await client.store.call("PUBLISH", client.names.bus("sockets", question.token), told)


async def open_sockets(client: Client, user: str = "", *, close: bool = False) -> list[GatewaySockets]:
    """Ask all gateways; returns as soon as all have answered, at the latest after a second. Raises: ServerError.

    *close*: have those of *user* closed, as they are returned; a browser that is still signed in comes back.
    """
    now_us = client.now_us()
    found = {
        each.name: GatewaySockets(
            each.name,
            int(each.gauges["sockets"]),
            answered=False,
            reported_ms_ago=(now_us - each.at_us) // 1000,
            open=[],
        )
        for each in await History(client).processes()
        if "sockets" in each.gauges
    }
    question = SocketsAsked(secrets.token_hex(12), user, close)
    answers: asyncio.Queue[bytes] = asyncio.Queue()
    channel = client.names.bus("sockets", question.token)
    subscription = await client.subscriptions.subscribe(channel, lambda _, payload: answers.put_nowait(payload))
    try:
        asked = await client.store.call("PUBLISH", client.names.bus("sockets"), msgspec.json.encode(question))
        expected = max(asked, len(found))  # of a cluster the first is what one node knows
        with suppress(TimeoutError):
            async with asyncio.timeout(ANSWER_S):
                for _ in range(expected):
                    told = msgspec.json.decode(await answers.get(), type=SocketsTold)
                    found[told.process] = GatewaySockets(
                        told.process, told.sockets, answered=True, reported_ms_ago=0, open=told.open
                    )
    finally:
        await subscription.cancel()
    return sorted(found.values(), key=lambda gateway: gateway.process)
