"""`events show ID`: what became of one event."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Iterator, Mapping

from cachebus.monitoring.event_lookup import FoundEvent, find_events
from cachebus.worker.commands.output import moment, printable, span, write_json
from cachebus.worker.connection import connected_client
from cachebus.worker.settings import WorkerSettings


def main(asked: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Print each event of that id; 1 if there is none."""
    settings = WorkerSettings.from_environment(environment)
    events = asyncio.run(_look(asked.id, settings))
    if asked.json:
        write_json(events)
    elif not events:
        kept = f"handled events are kept for {settings.bus.retention_ms / 1000:g} s"
        sys.stdout.write(f"there is no event {printable(asked.id)}: neither an id nor a position; {kept}\n")
    else:
        sys.stdout.write("\n\n".join("\n".join(_lines(event)) for event in events) + "\n")
    return int(not events)


async def _look(asked: str, settings: WorkerSettings) -> list[FoundEvent]:
    async with connected_client(settings.cache) as client:
        return await find_events(client, asked, settings.bus.shards)


def _lines(event: FoundEvent) -> Iterator[str]:
    if event.state == "delayed":
        yield f"event      {printable(event.id)}"
        yield f"state      delayed, published at {moment(event.due_ms * 1000)}; cachebus cancel takes it back"
        yield f"channel    {printable(event.channel)}, key {printable(event.key) or '-'}"
        yield f"payload    {printable(event.payload)}"
        return
    state = event.state
    if event.retries:
        state += f", {len(event.retries)} to be tried again"
    if event.letters:
        state += f", {len(event.letters)} dead-lettered"
    yield f"event      {printable(event.id) or '-'}, position {event.position}"
    yield f"state      {state}"
    by = f", by {printable(event.by)}" if event.by else ""
    yield f"published  {moment(event.published_ms * 1000, 'milliseconds')}{by}"
    yield f"channel    {printable(event.channel)}, key {printable(event.key) or '-'}, shard {event.shard}"
    for retry in event.retries:
        yield f"retry      {printable(retry.handler)}, due in {span(retry.due_in_ms * 1000)}"
    for letter in event.letters:
        yield f"letter     {letter}; cachebus letters show {letter}"
    for effect in event.invalidated:
        scopes = ", ".join(effect.scopes) or "what another event had named before"
        yield printable(f"effect     {effect.handler} invalidated {scopes} at {moment(effect.clock, 'milliseconds')}")
    yield f"payload    {printable(event.payload)}"
