"""`doctor`: look at Redis, this installation and the application; say what is wrong and how to mend it."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import statistics
import sys
import time
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from cachebus import ServerError
from cachebus.roster import workers
from cachebus.server import Server
from cachebus.wire import Address
from worker.connection import connected
from worker.diagnosis import Facts, Finding, Grade, judge, judge_installation
from worker.loading import load
from worker.masking import mask_urls
from worker.settings import CannotStart, Settings

PINGS = 5


def main(_asked: argparse.Namespace, settings: Settings) -> int:
    """Print every finding; 1 if anything is bad."""
    findings = [Finding(Grade.WARNING, warning, "correct its name, or remove it") for warning in settings.unknown]
    findings += judge_installation(_version("hiredis"), uvloop=find_spec("uvloop") is not None)
    findings += _disk(settings.process.data_dir)
    findings += _application(settings)
    findings += asyncio.run(_redis(settings))
    for finding in findings:
        sys.stdout.write(f"{finding.grade.value:>4}  {mask_urls(finding.what)}\n")
        if finding.fix:
            sys.stdout.write(f"      fix: {finding.fix}\n")
    return int(any(finding.grade is Grade.BAD for finding in findings))


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _disk(data_dir: str) -> Iterator[Finding]:
    folder = Path(data_dir).absolute()
    there = folder
    while not there.exists():
        there = there.parent
    if os.access(there, os.W_OK):
        yield Finding(Grade.OK, f"DATA_DIR: {folder} can be written")
    else:
        yield Finding(Grade.WARNING, f"DATA_DIR: {folder} cannot be written, `check` finds no worker", "choose another")


def _application(settings: Settings) -> Iterator[Finding]:
    try:
        application = load(settings.application)
    except CannotStart as refused:
        for problem in refused.problems:
            yield Finding(Grade.BAD, problem, "the worker does not start before this is mended")
        return
    yield Finding(
        Grade.OK,
        f"{len(application.handlers)} handlers, {len(application.jobs)} jobs, {len(application.cache.views)} views",
    )
    for warning in application.warnings:
        yield Finding(Grade.WARNING, warning, "compare it with the tags and keys that the views declare")


async def _redis(settings: Settings) -> list[Finding]:
    try:
        async with connected(settings.cache) as cache:
            link, url = cache.link, cache.settings.url
            store_url = settings.cache.store_url or url
            apart = link.entries is not link.store
            findings = list(judge(await _facts(link.store, store_url, keeps=True, caches=not apart)))
            if apart:
                findings += judge(await _facts(link.entries, url, keeps=False, caches=True))
            alive = await workers(link)
            names = ", ".join(f"{worker.name} ({worker.state})" for worker in alive)
            findings.append(
                Finding(Grade.OK, f"{len(alive)} workers at work: {names}" if alive else "no worker at work")
            )
            return findings
    except CannotStart as refused:
        return [Finding(Grade.BAD, problem) for problem in refused.problems]
    except ServerError as away:
        fix = "start it, or correct the URL; the worker itself waits for it"
        return [Finding(Grade.BAD, f"redis does not answer: {away}", fix)]


async def _facts(server: Server, url: str | None, *, keeps: bool, caches: bool) -> Facts:
    """Ask one server what it is. What it refuses to say is left out, or found. Raises: ServerError when it is away."""
    trips = []
    for _ in range(PINGS):
        began = time.perf_counter()
        seconds, micros = await server.call("TIME")
        trips.append((time.perf_counter() - began) * 1000)
    skew_s = int(seconds) + int(micros) / 1e6 - time.time()
    info: dict[str, str] = {}
    max_clients = None
    with contextlib.suppress(ServerError):  # managed servers keep some of it to themselves
        text = (await server.call("INFO")).decode()
        info = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    with contextlib.suppress(ServerError):
        _, limit = await server.call("CONFIG", "GET", "maxclients")
        max_clients = int(limit)
    refused = []
    try:
        await server.call("EVAL", "return redis.call('TIME')[1]", 0)
    except ServerError:
        refused.append("EVAL")
    known = True
    with contextlib.suppress(ServerError):
        known = None not in await server.call("COMMAND", "INFO", "ZMSCORE")
    address = Address(url) if url else None
    return Facts(
        name="store" if keeps and not caches else "entries" if caches and not keeps else "redis",
        host=address.hosts[0][0] if address and address.hosts else "127.0.0.1",
        info=info,
        keeps=keeps,
        caches=caches,
        tls=bool(url and url.startswith("rediss")),
        round_trip_ms=statistics.median(trips),
        skew_s=skew_s,
        max_clients=max_clients,
        known_commands=known,
        refused=tuple(refused),
    )
