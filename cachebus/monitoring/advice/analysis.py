"""An analysis: have the processes record, compute the report in a child process, keep it for whoever looks."""

from __future__ import annotations

import asyncio
import os
import sys
from importlib import import_module

import msgspec

from cachebus.cache.foresight.recording import Recording
from cachebus.cache.upkeep.reporter import HOURS_KEPT
from cachebus.durations import Duration
from cachebus.errors import ConfigurationError
from cachebus.monitoring.advice.asking import Asking, progress
from cachebus.monitoring.advice.computing import Analysable
from cachebus.monitoring.advice.report import MOST_REPORT_BYTES, REPORT_TTL_S, SCHEMA, Report
from cachebus.monitoring.history import History
from cachebus.redis.client import Client

__all__ = ["analysed", "computed", "newest_report", "progress", "start_analysis"]

COMPUTING = "cachebus.monitoring.advice.computing"


async def newest_report(client: Client) -> Report | None:
    """Return the last report; None where there is none, or one of another version. Raises: ServerError."""
    found = await client.store.call("GET", report_key(client))
    if found is None:
        return None
    try:
        report = msgspec.json.decode(found, type=Report)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return report if report.schema == SCHEMA else None


async def start_analysis(client: Client, *, duration: Duration = "10m", asked_by: str) -> asyncio.Task[Report]:
    """Begin an analysis and return its task: record, have the report computed in a child process, keep it.

    It ends, and the processes stop recording, when the task is cancelled or this process dies.
    Raises: ConfigurationError for a bad duration; RecordingUnderWay while somebody else's runs; ServerError.
    """
    asking = await Asking.begin(client, duration, asked_by)
    return asyncio.create_task(_analysed(client, asking), name="cachebus analysis")


async def analysed(client: Client, recording: Recording) -> Report:
    """Return the report of what was recorded, and keep it. Raises: ConfigurationError, ServerError."""
    history = History(client)
    hours, releases = await asyncio.gather(history.hours(HOURS_KEPT), history.releases())
    report = await computed(
        Analysable(
            recording=recording,
            hours={at: {view: dict(of) for view, of in views.items()} for at, views in hours.items() if views},
            releases=[(release.name, release.at_ms) for release in releases],
            at_ms=client.now_us() / 1000,
            version=import_module("cachebus").__version__,
        )
    )
    encoded = msgspec.json.encode(report)
    if len(encoded) <= MOST_REPORT_BYTES:
        await client.store.call("SET", report_key(client), encoded, "EX", REPORT_TTL_S)
    return report


async def computed(job: Analysable) -> Report:
    """Have a child process make the report, at low priority: this one's loop goes on. Killed where this is cancelled.

    Raises: ConfigurationError that says what is wrong with the recording.
    """
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        COMPUTING,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    try:
        written, said = await child.communicate(msgspec.msgpack.encode(job))
    except BaseException:
        if child.returncode is None:
            child.kill()
            await child.wait()
        raise
    if child.returncode:
        last = said.decode(errors="replace").strip().rpartition("\n")[2]
        raise ConfigurationError(last.removeprefix("cachebus.errors.ConfigurationError: "))
    return msgspec.json.decode(written, type=Report)


def report_key(client: Client) -> str:
    """Return the name of the string that holds the last report."""
    return client.names.bus("advice")


async def _analysed(client: Client, asking: Asking) -> Report:
    return await analysed(client, await asking.recorded())
