"""`forget USER`: delete what is kept of one user, with a receipt; says first what there is, deletes with --yes."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Iterator, Mapping

from cachebus.errors import CannotStart
from cachebus.freshness.cause import caused_by
from cachebus.freshness.clock import is_queued
from cachebus.monitoring.forgetting import Forgetting, Receipt
from cachebus.worker.commands import audited
from cachebus.worker.commands.output import moment, printable, progress, write_json
from cachebus.worker.connection import connected
from cachebus.worker.loading import Application, load
from cachebus.worker.settings import WorkerSettings


def main(asked: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Print what is kept of the user, and with --yes what was deleted. Raises: CannotStart for an empty id."""
    settings = WorkerSettings.from_environment(environment)
    if not asked.user.strip():
        raise CannotStart(["USER is empty; name the id of one user"])
    receipt = asyncio.run(_forget(asked, settings, load(settings.application)))
    if asked.json:
        write_json(receipt)
    else:
        sys.stdout.write("\n".join(_lines(receipt)) + "\n")
    return int(receipt.done and is_queued(receipt.clock))


async def _forget(asked: argparse.Namespace, settings: WorkerSettings, application: Application) -> Receipt:
    async with connected(settings.cache, application) as cache:
        if asked.yes:
            await audited.note(cache.client, "forget", user=asked.user)
        with (
            caused_by("command", audited.operator(), "forget"),
            progress(f"looking for user {printable(asked.user)}") as step,
        ):
            forgetting = Forgetting(cache, asked.user, shards=settings.bus.shards, step=step)
            return await forgetting.run(delete=asked.yes)


def _lines(receipt: Receipt) -> Iterator[str]:
    yield f"user {printable(receipt.user)}, {moment(receipt.at_ms * 1000)}: {'deleted' if receipt.done else 'found'}"
    for number, what in (
        (receipt.sessions, "sessions"),
        (receipt.entries, "cached values"),
        (receipt.letters, "dead letters"),
        (receipt.limits, "rate limit counters"),
        (receipt.reads, "calls noted as read"),
        (receipt.events, "handled events"),
    ):
        yield f"  {number:>9,}  {what}"
    for what, number in receipt.left.items():
        yield f"  {number:>9,}  left: {what}"
    if receipt.done:
        yield f"no process reads older values since clock {receipt.clock}"
    else:
        yield "nothing was deleted; add --yes to do it"
