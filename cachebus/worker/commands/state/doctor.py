"""`doctor`: look at Redis, this installation and the application; say what is wrong and how to correct it."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from cachebus.bus.permissions import refused_channels, refused_commands
from cachebus.cache.upkeep.declarations import shared_views
from cachebus.environment import misspelt, variables
from cachebus.errors import CannotStart, ServerError
from cachebus.freshness.present import present_era
from cachebus.monitoring.history import History
from cachebus.monitoring.verdict.diagnosis import Finding, Grade, judge, judge_era, judge_installation, judge_reads
from cachebus.monitoring.verdict.examination import examine
from cachebus.monitoring.wording import counted
from cachebus.monitoring.workers import workers
from cachebus.process.masking import mask_urls
from cachebus.redis.client import Client
from cachebus.worker.commands.output import write_json
from cachebus.worker.connection import connected
from cachebus.worker.health.heartbeat import Heartbeat
from cachebus.worker.health.readiness import Check, ask
from cachebus.worker.loading import Application, load
from cachebus.worker.settings import WorkerSettings, every_section


def main(asked: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Print every finding; 1 if anything is bad."""
    settings = WorkerSettings.from_environment(environment)
    mistakes = misspelt(environment, [each.name for each in variables(*every_section())])
    findings = [Finding(Grade.WARNING, warning, "correct its name, or remove it") for warning in mistakes]
    findings += judge_installation(_version("hiredis"), uvloop=find_spec("uvloop") is not None)
    findings += _disk(settings.process.data_dir)
    application = _load(settings, findings)
    findings += asyncio.run(_redis(settings, application))
    if application is not None and application.ready_check is not None:
        findings += asyncio.run(_ready(application.ready_check))
    elif settings.application.database_url is not None and settings.application.ready_check is None:
        what = "DATABASE_URL is set, but nothing asks that database: a worker is ready while it is down"
        findings.append(Finding(Grade.WARNING, what, "READY_CHECK=package.module:name, an async function that asks it"))
    if asked.json:
        write_json([{"grade": each.grade.value, "what": mask_urls(each.what), "fix": each.fix} for each in findings])
        return int(any(finding.grade is Grade.BAD for finding in findings))
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
    beat = Heartbeat(data_dir)
    try:
        beat.begin()
    except OSError as refused:
        what = f"DATA_DIR: {folder} cannot be written ({refused.strerror}), `check` finds no worker"
        yield Finding(Grade.WARNING, what, "choose another")
        return
    used = beat.path.parent
    stands_in = "" if used == Path(data_dir) / "workers" else f" cannot be written; {used} is used instead"
    yield Finding(Grade.OK, f"DATA_DIR: {folder}{stands_in or ' can be written'}")


def _load(settings: WorkerSettings, findings: list[Finding]) -> Application | None:
    """Return the application, None where it cannot be loaded; what is found is added to *findings*."""
    try:
        application = load(settings.application)
    except CannotStart as refused:
        fix = "correct it: the worker does not start before"
        findings += [Finding(Grade.BAD, problem, fix) for problem in refused.problems]
        return None
    counts = f"{len(application.handlers)} handlers, {len(application.jobs)} jobs, {len(application.cache.views)} views"
    findings.append(Finding(Grade.OK, counts))
    fix = "compare it with the tags and keys that the views declare"
    findings += [Finding(Grade.WARNING, warning, fix) for warning in application.warnings]
    return application


async def _ready(check: Check) -> Iterator[Finding]:
    problem = await ask(check)
    if not problem:
        return iter([Finding(Grade.OK, "READY_CHECK: the application is ready")])
    fix = "start what it asks, or correct its URL (DATABASE_URL); until then the worker is not ready"
    return iter([Finding(Grade.BAD, f"READY_CHECK: the application is not ready: {problem}", fix)])


async def _permissions(client: Client, application: Application | None) -> Iterator[Finding]:
    """Try what a worker needs. Raises: ServerError when the server is unavailable."""
    channels = [handler.pattern.text for handler in application.handlers] if application is not None else []
    lines = [*await refused_commands(client), *await refused_channels(client, channels)]
    if not lines:
        return iter([Finding(Grade.OK, "access rules: this user may do everything that a worker does")])
    missing = (line.partition("; add it: ") for line in lines)
    return (Finding(Grade.BAD, what, rule) for what, _, rule in missing)


async def _redis(settings: WorkerSettings, application: Application | None) -> list[Finding]:
    try:
        async with connected(settings.cache) as cache:
            client, url = cache.client, cache.settings.url
            store_url = settings.cache.store_url or url
            apart = client.entries is not client.store
            findings = list(
                judge(await examine(client.store, store_url, client.names.wake, keeps=True, caches=not apart))
            )
            if apart:
                findings += judge(await examine(client.entries, url, client.names.wake, keeps=False, caches=True))
            findings += await _permissions(client, application)
            findings += await _era(client, settings)
            findings += [
                Finding(Grade.WARNING, what, fix)
                for what, _, fix in (str(shared).partition("; ") for shared in await shared_views(client))
            ]
            findings += judge_reads(await History(client).processes())
            alive = await workers(client)
            names = ", ".join(f"{worker.name} ({worker.state})" for worker in alive)
            findings.append(
                Finding(Grade.OK, f"{counted(len(alive), 'worker')} at work: {names}" if alive else "no worker at work")
            )
            return findings
    except CannotStart as refused:
        return [*(Finding(Grade.BAD, problem) for problem in refused.problems), *await _missing(settings, application)]
    except ServerError as unavailable:
        fix = "start it, or correct the URL; the worker itself waits for it"
        return [Finding(Grade.BAD, f"redis unavailable: {unavailable}", fix)]


async def _era(client: Client, settings: WorkerSettings) -> list[Finding]:
    """Look at the ledger's era. Raises: ServerError."""
    era = await present_era(client)
    if era is None:
        return []
    fsync = None
    with contextlib.suppress(ServerError):  # managed servers keep it to themselves
        _, policy = await client.store.call("CONFIG", "GET", "appendfsync")
        _, appends = await client.store.call("CONFIG", "GET", "appendonly")
        fsync = policy.decode() if appends == b"yes" else "never"
    began = datetime.fromtimestamp(era.began_us / 1e6, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    return list(judge_era(era, began, trusts_restarts=settings.cache.trust_restarts, fsync=fsync))


async def _missing(settings: WorkerSettings, application: Application | None) -> list[Finding]:
    """Return the access rules that a user lacks who may log in, and less than a cache needs to open."""
    cache = settings.cache
    if cache.url is None:
        return []
    try:
        async with Client(
            cache.url,
            store_url=cache.store_url,
            namespace=cache.namespace,
            credentials=cache.credentials_source(),
        ) as client:
            if not client.store.up:  # a wrong password, or none: nothing can be tried
                return []
            return [each for each in await _permissions(client, application) if each.grade is Grade.BAD]
    except ServerError:
        return []
