"""`analyze`: record the traffic of all processes for a time, and say what to set differently and what that saves.

Records nothing with `--from`: a recording that `--keep` wrote is analysed again, without Redis.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from pathlib import Path

import msgspec

from cachebus.cache.foresight.recording import Recording, from_file, to_file
from cachebus.cache.settings import CacheSettings
from cachebus.errors import CannotStart, RecordingUnderWay
from cachebus.monitoring.advice.analysis import analysed, computed
from cachebus.monitoring.advice.asking import Asking
from cachebus.monitoring.advice.computing import Analysable
from cachebus.monitoring.advice.report import Advice, Progress, Report
from cachebus.worker.commands.audited import operator
from cachebus.worker.commands.output import printable, progress, span, write_json, write_table
from cachebus.worker.connection import connected_client

ADVICE = ("SAVES S/DAY", "CONFIDENCE", "ADVICE", "PROVIDED THAT")
VIEWS = ("VIEW", "READS", "HIT %", "LOADS", "MS/LOAD", "LOADING S/DAY", "UNREAD %", "TTL S")
MEMORY = ("ENTRIES", "MEMORY HITS %", "LOWEST", "HIGHEST")
DURATION = "10m"


def main(asked: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Print advice, the views and the memory curve. Raises: CannotStart for options that do not go together."""
    if asked.source is not None and (asked.duration is not None or asked.keep is not None):
        raise CannotStart(["--from: analyses what is recorded already; leave --for and --keep out"])
    try:
        report = asyncio.run(_of_file(asked.source) if asked.source is not None else _record(asked, environment))
    except RecordingUnderWay as other:
        sys.stderr.write(f"{asked.parser.prog}: {other}\n")
        return 1
    if asked.json == "-":
        write_json(report)
        return 0
    if asked.json is not None:
        _write(asked.json, msgspec.json.encode(report))
    _show(report)
    return 0


async def _record(asked: argparse.Namespace, environment: Mapping[str, str]) -> Report:
    for path in (asked.json, asked.keep):
        _check(path)
    async with connected_client(CacheSettings.from_environment(environment)) as client:
        asking = await Asking.begin(client, asked.duration or DURATION, operator())
        with _bar(asking) as said:
            recording = await asking.recorded(said)
        if asked.keep is not None:
            _write(asked.keep, to_file(recording))
        return await analysed(client, recording)


async def _of_file(source: str) -> Report:
    recording = read_recording(source)
    version = str(import_module("cachebus").__version__)
    return await computed(Analysable(recording=recording, at_ms=time.time() * 1000, version=version))


def read_recording(source: str) -> Recording:
    """Return the recording in a file. Raises: CannotStart, ConfigurationError that says what is wrong with it."""
    try:
        return from_file(Path(source).read_bytes())
    except OSError as missing:
        raise CannotStart(
            [f"{source}: {missing.strerror}; `cachebus analyze --keep FILE` writes a recording"]
        ) from None


@contextlib.contextmanager
def _bar(asking: Asking) -> Iterator[Callable[[Progress], None]]:
    """Show how far a recording is, in seconds."""
    began, shown = time.monotonic(), 0
    with progress(f"recording one key in {round(1 / asking.wanted.rate)}", asking.seconds) as step:

        def said(_now: Progress) -> None:
            nonlocal shown
            done = min(asking.seconds, round(time.monotonic() - began))
            step(done - shown)
            shown = done

        yield said


def _show(report: Report) -> None:
    of = report.recording
    sys.stdout.write(
        f"recorded {span(of.seconds * 1e6)} in {of.processes} processes: {of.sampled:,} of {of.reads:,} reads\n"
    )
    if of.lost:
        sys.stdout.write(f"{of.lost:,} sampled reads found no room; record for a shorter time\n")
    nothing = (
        report.silent or "no advice: nothing would raise a hit ratio by 2 points, or save loads that are for nobody"
    )
    write_table(ADVICE, [_advice(advice) for advice in report.advice], nothing)
    if report.views:
        sys.stdout.write("\n")
        rows = [
            (
                view.name,
                view.reads,
                None if view.hits is None else round(100 * view.hits, 1),
                view.loads,
                None if view.load_ms is None else round(view.load_ms, 1),
                round(view.database_s, 1),
                round(100 * view.ended_unread / view.ended, 1) if view.ended else None,
                view.ttl_s,
            )
            for view in report.views
        ]
        write_table(VIEWS, rows, "")
    if report.memory is not None:
        sys.stdout.write("\n")
        points = [
            (point.entries, *(round(100 * share, 1) for share in (point.hits.median, point.hits.low, point.hits.high)))
            for point in report.memory.points
        ]
        write_table(MEMORY, points, "")


def _advice(advice: Advice) -> tuple[float, str, str, str]:
    return round(advice.database_s, 1), advice.confidence, printable(advice.sentence), advice.caution


def _check(path: str | None) -> None:
    """Refuse a file that cannot be written before ten minutes are over."""
    if path is not None and path != "-" and not Path(path).resolve().parent.is_dir():
        raise CannotStart([f"{path}: there is no folder {Path(path).parent}; make it first"])


def _write(path: str, content: bytes) -> None:
    try:
        Path(path).write_bytes(content)
    except OSError as refused:
        raise CannotStart([f"{path}: {refused.strerror}"]) from None
