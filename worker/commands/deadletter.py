"""`deadletter list|show|replay|purge`: events that could not be handled."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections import deque
from collections.abc import AsyncIterator, Iterable
from datetime import UTC, datetime

from cachebus.deadletters import DeadLetters, Letter
from worker.connection import connected
from worker.settings import CannotStart, Settings

AT_ONCE = 1000


def main(asked: argparse.Namespace, settings: Settings) -> int:
    """Do what was asked; 1 where a letter that was named is not there."""
    if asked.verb in {"replay", "purge"} and bool(asked.id) == asked.all:
        raise CannotStart([f"deadletter {asked.verb}: name letters by id, or say --all"])
    return asyncio.run(_deadletter(asked, settings))


async def _deadletter(asked: argparse.Namespace, settings: Settings) -> int:
    async with connected(settings.cache) as cache:
        letters = DeadLetters(cache.link, shards=settings.bus.shards)
        if asked.verb == "list":
            newest = deque([letter async for letter in _all(letters)], maxlen=asked.last)
            _write(_line(letter) for letter in reversed(newest))
            return 0
        if asked.verb == "show":
            letter = await letters.show(asked.id)
            _write(_page(letter) if letter else [f"there is no dead letter {asked.id}"])
            return int(letter is None)
        if asked.verb == "replay":
            wanted = [letter.letter_id async for letter in _all(letters)] if asked.all else asked.id
            done = await letters.replay(wanted)
            _write([f"{done} of {len(wanted)} are handled again"])
            return int(not asked.all and done < len(wanted))
        done = await letters.purge(None if asked.all else asked.id)
        _write([f"{done} forgotten"])
        return int(not asked.all and done < len(asked.id))


async def _all(letters: DeadLetters) -> AsyncIterator[Letter]:
    """Yield every letter, oldest first, in pages: there may be thousands."""
    after: str | None = None
    while page := await letters.list(AT_ONCE, after):
        for letter in page:
            yield letter
        after = page[-1].letter_id


def _write(lines: Iterable[str]) -> None:
    for line in lines:
        sys.stdout.write(line + "\n")


def _line(letter: Letter) -> str:
    who = letter.handler or "-"
    return f"{letter.letter_id}  {_when(letter.letter_id)}  {letter.kind}  {letter.channel}  {who}  {letter.reason}"


def _page(letter: Letter) -> list[str]:
    return [
        f"id         {letter.letter_id}, {_when(letter.letter_id)}",
        f"kind       {letter.kind}",
        f"reason     {letter.reason}",
        f"channel    {letter.channel}",
        f"handler    {letter.handler or '-'}, {letter.attempts} attempts",
        f"event      {letter.id or '-'}, key {letter.key or '-'}, position {letter.position}",
        f"payload    {letter.payload.decode(errors='backslashreplace')}",
        *([letter.detail] if letter.detail else []),
    ]


def _when(position: str) -> str:
    """Return the time a stream id stands for, by the server's clock."""
    return f"{datetime.fromtimestamp(int(position.partition('-')[0]) / 1000, UTC):%Y-%m-%d %H:%M:%S}"
