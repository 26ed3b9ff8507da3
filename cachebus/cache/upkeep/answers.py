"""What a process tells of itself only when somebody asks: with its next report, in a hash that soon ends.

A question is `topic name`, such as `memory orders:7`. Who asks keeps it in a sorted set for half a minute, every
process hears of it in the reply to its report, and answers. Nothing is asked, sent or kept while nobody looks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any, Generic, TypeVar

import msgspec

from cachebus.cache.tiers.memory import Memory
from cachebus.clock import now_s
from cachebus.errors import ServerError
from cachebus.redis.client import Client

T = TypeVar("T")

MOST_ASKED = 20
"""Questions that are answered at once, the newest first."""
ASKED_S = 30
"""A question is answered this long after it was last asked."""
ANSWER_TTL_S = 60
GONE_US = 35_000_000
"""Processes answer every ten seconds; what is older than three and a half answers is of one that is gone."""


class StoredAnswer(msgspec.Struct, frozen=True):
    """What one process says."""

    at_us: int
    """The server's time."""
    told: list[Any]


class FromProcess(msgspec.Struct, Generic[T], frozen=True):
    """What one process said lately."""

    process: str
    at_us: int
    told: list[T]


class MemoryCopy(msgspec.Struct, frozen=True):
    """A value that a process holds in memory."""

    view: str
    """'' for a plain key."""
    age_ms: float
    """Since it was loaded, here or elsewhere."""
    fresh_ms: float
    """Left of its TTL; negative: it is stale."""
    valid: bool
    """Whether this process knows of nothing that has made it old."""
    read: bool
    """Whether somebody has read it since it came here."""


async def ask(client: Client, question: str, kind: type[T]) -> list[FromProcess[T]]:
    """Ask all processes, and return what they have answered by now: nothing the first time.

    Four round trips; whoever asks again sees more. Raises: ServerError.
    """
    asked, answers, now_us = asked_key(client), answers_key(client, question), client.now_us()
    call = client.store.call
    with suppress(ServerError):  # full, or read only: what was answered before is shown all the same
        await call("ZADD", asked, now_us, question)
        await call("ZREMRANGEBYSCORE", asked, "-inf", now_us - ASKED_S * 1_000_000)
        await call("EXPIRE", asked, ASKED_S)
    reply = await call("HGETALL", answers)
    found = []
    for process, said in zip(reply[::2], reply[1::2], strict=True):
        with suppress(msgspec.DecodeError, msgspec.ValidationError):  # of another version, or somebody else's
            answer = msgspec.json.decode(said, type=StoredAnswer)
            if answer.at_us > now_us - GONE_US:
                told = msgspec.convert(answer.told, list[kind])  # type: ignore[valid-type] # what the caller says
                found.append(FromProcess(process.decode(errors="replace"), answer.at_us, told))
    return sorted(found, key=lambda each: each.process)


async def answer(client: Client, process: str, questions: Iterable[bytes]) -> None:
    """Answer what is asked, as far as anything here can tell. Raises: ServerError."""
    for question in questions:
        text = question.decode(errors="replace")
        topic, _, name = text.partition(" ")
        if tellers := client.tellers.get(topic):
            told = [each for teller in tellers for each in teller(name)]
            key = answers_key(client, text)
            await client.store.call("HSET", key, process, msgspec.json.encode(StoredAnswer(client.now_us(), told)))
            await client.store.call("EXPIRE", key, ANSWER_TTL_S)


def copies_in(memory: Memory, key: str) -> Iterator[MemoryCopy]:
    """Return what memory holds under a key."""
    held, now = memory.held.get(key), now_s()
    if held is not None:
        yield MemoryCopy(
            held.view,
            age_ms=(now - held.loaded_at) * 1000,
            fresh_ms=(held.fresh_until - now) * 1000,
            valid=memory.is_valid(held),
            read=not held.is_unread,
        )


def asked_key(client: Client) -> str:
    """Return the name of the sorted set of questions by when they were last asked."""
    return client.names.bus("asked")


def answers_key(client: Client, question: str) -> str:
    """Return the name of the hash of answers to a question, by process."""
    return client.names.bus("answers", hashlib.blake2b(question.encode(errors="replace"), digest_size=12).hexdigest())
