"""`letters list|groups|show|replay|purge`: events that could not be handled."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Iterator, Mapping, Sequence

from cachebus.bus.dead_letters import AT_ONCE, DeadLetters, every_letter, told, watched
from cachebus.bus.letters import Letter, grouped
from cachebus.errors import CannotStart
from cachebus.monitoring.wording import counted
from cachebus.redis.client import Client
from cachebus.worker.commands import audited
from cachebus.worker.commands.output import moment, printable, progress, write_json, write_table
from cachebus.worker.connection import connected_client
from cachebus.worker.settings import WorkerSettings


def main(asked: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Do what was asked; 1 where a letter that was named is not there, or one that was put back fails again."""
    settings = WorkerSettings.from_environment(environment)
    if asked.verb in {"replay", "purge"} and bool(asked.id) == asked.all:
        raise CannotStart(["name letters by id, or say --all"])
    return asyncio.run(_letters(asked, settings))


async def _letters(asked: argparse.Namespace, settings: WorkerSettings) -> int:
    async with connected_client(settings.cache) as client:
        letters = DeadLetters(client, shards=settings.bus.shards)
        if asked.verb == "list":
            return _list(await letters.newest(asked.last), as_json=asked.json)
        if asked.verb == "groups":
            return _groups(await _every(letters, "letters groups"), as_json=asked.json)
        if asked.verb == "show":
            return _show(asked, await letters.show(asked.id))
        return await _change(asked, client, letters)


def _list(letters: Sequence[Letter], *, as_json: bool) -> int:
    if as_json:
        write_json([_plain(letter) for letter in letters])
        return 0
    rows = [
        (each.letter_id, _when(each.letter_id), each.kind, each.channel, each.handler, each.reason) for each in letters
    ]
    write_table(("LETTER", "SINCE", "KIND", "CHANNEL", "HANDLER", "REASON"), rows, "there is no dead letter")
    return 0


def _groups(letters: Sequence[Letter], *, as_json: bool) -> int:
    groups = grouped(letters)
    if as_json:
        write_json(groups)
        return 0
    rows = [
        (each.count, each.kind, each.channel, each.handler, each.reason, moment(each.last_ms * 1000), each.newest)
        for each in groups
    ]
    names = ("LETTERS", "KIND", "CHANNEL", "HANDLER", "REASON", "LAST", "NEWEST")
    write_table(names, rows, "there is no dead letter")
    return 0


def _show(asked: argparse.Namespace, letter: Letter | None) -> int:
    if asked.json:
        write_json(_plain(letter) if letter else None)
    elif letter is None:
        sys.stdout.write(f"there is no dead letter {printable(asked.id)}\n")
    else:
        sys.stdout.write("\n".join(_page(letter)) + "\n")
    return int(letter is None)


async def _change(asked: argparse.Namespace, client: Client, letters: DeadLetters) -> int:
    if asked.all:
        wanted = await _every(letters, "reading")
    else:
        wanted = [letter for each in asked.id if (letter := await letters.show(each))]
    replay = asked.verb == "replay"
    ids = [letter.letter_id for letter in wanted] if asked.all else asked.id
    await audited.note(client, "letters/retry" if replay else "letters/discard", ids=ids)
    done = 0
    with progress(f"letters {asked.verb}", len(wanted)) as step:
        for first in range(0, len(wanted), AT_ONCE):
            part = [letter.letter_id for letter in wanted[first : first + AT_ONCE]]
            done += await (letters.replay(part) if replay else letters.purge(part))
            step(len(part))
    outcomes = []
    if replay:
        with progress("watching what becomes of them"):
            outcomes = await watched(letters, [each for each in wanted if each.replayable])
    effect = f"put back{printable(told(outcomes))}" if replay else "deleted"
    sys.stdout.write(f"{done:,} of {counted(len(ids), 'letter')} {effect}\n")
    failed_again = any(outcome.state == "failed" for outcome in outcomes)
    return int(failed_again or (not asked.all and done < len(ids)))


async def _every(letters: DeadLetters, what: str) -> list[Letter]:
    found = []
    with progress(what, await letters.count()) as step:
        async for letter in every_letter(letters):
            found.append(letter)
            step(1)
    return found


def _page(letter: Letter) -> Iterator[str]:
    yield f"id         {letter.letter_id}, {_when(letter.letter_id)}"
    yield f"kind       {printable(letter.kind)}"
    yield f"reason     {printable(letter.reason)}"
    yield f"channel    {printable(letter.channel)}"
    yield f"handler    {printable(letter.handler) or '-'}, {counted(letter.attempts, 'attempt')}"
    yield f"event      {printable(letter.id) or '-'}, key {printable(letter.key) or '-'}, position {letter.position}"
    yield f"payload    {printable(letter.payload.decode(errors='backslashreplace'))}"
    yield from (printable(line) for line in letter.detail.splitlines())


def _plain(letter: Letter) -> dict[str, object]:
    """Return a letter for JSON: payloads may be no text."""
    return {**letter._asdict(), "payload": letter.payload.decode(errors="backslashreplace")}


def _when(letter_id: str) -> str:
    return moment(int(letter_id.partition("-")[0]) * 1000)
