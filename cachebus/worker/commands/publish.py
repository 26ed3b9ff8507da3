"""`publish CHANNEL JSON`: publish one event, as an app does."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from cachebus.bus.events import InvalidEvent, encode, envelope_fault
from cachebus.bus.publisher import Bus
from cachebus.errors import CannotStart, PublishRefused
from cachebus.worker.commands import audited
from cachebus.worker.connection import connected_client
from cachebus.worker.settings import ApplicationSettings, WorkerSettings

FORCE = "--force publishes it all the same"


def main(asked: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Print the id of the event; 1 with the reason where it was refused.

    Raises: CannotStart where the application has no handler for it, or one that cannot read it; not with `--force`.
    """
    settings = WorkerSettings.from_environment(environment)
    payload = sys.stdin.buffer.read() if asked.event == "-" else asked.event.encode()
    if not asked.force:
        _look(asked.channel, payload, settings.application)
    try:
        sys.stdout.write(asyncio.run(_publish(asked, payload, settings)) + "\n")
    except PublishRefused as refused:
        sys.stderr.write(f"nothing was published: {refused}\n")
        return 1
    return 0


async def _publish(asked: argparse.Namespace, payload: bytes, settings: WorkerSettings) -> str:
    async with connected_client(settings.cache) as client:
        await audited.note(client, "publish", channel=asked.channel, key=asked.key, id=asked.id)
        bus = Bus(client, shards=settings.bus.shards, signatures=settings.bus.signatures())
        return await bus.publish(asked.channel, payload, key=asked.key, id=asked.id, delay=asked.delay)


def _look(channel: str, payload: bytes, application: ApplicationSettings) -> None:
    """Refuse what the application would not handle."""
    from cachebus.bus.handlers import Handler  # noqa: PLC0415 - with --force nothing of the application is loaded
    from cachebus.worker.loading import scan  # noqa: PLC0415

    if fault := envelope_fault(channel, None):
        raise CannotStart([f"{fault}"])
    try:
        encode(payload)
    except PublishRefused as refused:
        raise CannotStart([f"{refused}"]) from None
    problems: list[str] = []
    handlers: list[Handler[Any, Any]] = scan("HANDLERS", application.handlers, Handler, problems)
    if problems:
        raise CannotStart([f"{problem}; {FORCE}" for problem in problems])
    known = sorted({handler.pattern.text for handler in handlers})
    meant = [handler for handler in handlers if handler.pattern.matches(channel)]
    if not meant:
        near = get_close_matches(channel, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are handlers of: {', '.join(known) or 'nothing'};"
        raise CannotStart([f"nobody handles {channel!r}; {hint} {FORCE}"])
    for handler in meant:
        try:
            handler.decode(payload)
        except InvalidEvent as unfit:
            raise CannotStart([f"the event does not fit {handler.name}: {unfit}; {FORCE}"]) from None
