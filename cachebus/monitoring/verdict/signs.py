"""What the verdict is about, read from what was gathered. Pure, but for what it remembers of evictions."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence

from cachebus.bus.backlog import Backlog
from cachebus.cache.upkeep.reporter import LATENCY, ProcessReport, is_view
from cachebus.monitoring.history import Buckets, percentiles, total
from cachebus.monitoring.layers import CACHED, layers_of
from cachebus.monitoring.verdict.assessment import ENOUGH_READS, NEVER_CACHED, SLOW_HIT_MS, Signs
from cachebus.monitoring.verdict.servers import ServerFacts
from cachebus.monitoring.workers import WorkerEntry
from cachebus.schedules.store import JobStatus

RECENT_MINUTES = 10


class Evictions:
    """How many entries the servers evicted in the last ten minutes beyond those of the ten before."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def more(self, now_ms: float, evicted: int) -> int:
        """Take note of a count; 0 until there are two spans to compare, and where a server began again."""
        seen, span_ms = self._seen, RECENT_MINUTES * 60_000
        if seen and evicted < seen[-1][1]:
            seen.clear()
        seen.append((now_ms, evicted))
        while len(seen) > 1 and seen[1][0] <= now_ms - 2 * span_ms:
            seen.popleft()
        middle = next((count for at, count in seen if at >= now_ms - span_ms), evicted)
        lately, before = evicted - middle, middle - seen[0][1]
        return lately if seen[0][0] <= now_ms - 2 * span_ms and lately > before else 0


def signs_of_servers(facts: Sequence[ServerFacts]) -> Signs:
    """Return what the servers say of themselves."""
    return Signs(
        memory=max(server.memory_used for server in facts),
        unlimited=any(server.version and not server.memory_limit for server in facts),
        clients=max(server.clients_used for server in facts),
        evicts=any(s.keeps and s.memory_limit and s.policy not in ("", "noeviction") for s in facts),
    )


def add_processes(
    signs: Signs, processes: Sequence[ProcessReport], waits: Backlog, roster: Sequence[WorkerEntry]
) -> None:
    """Add what processes and workers say."""
    ready = [worker for worker in roster if worker.state != "draining"]
    signs.workers = len(ready)
    signs.unready = [
        f"worker {worker.name} is {worker.state}: {worker.why}" for worker in ready if worker.state != "ready"
    ]
    signs.unheld = [shard.shard for shard in waits.shards if shard.stored and not shard.holder]
    signs.waiting = sum(shard.waiting for shard in waits.shards)
    signs.letters = waits.dead_letters
    signs.queued = max((process.queued for process in processes), default=0)
    signs.refused = next((process.refused for process in processes if process.refused), "")
    signs.lag_ms = max((process.journal_lag_ms or 0.0 for process in processes), default=0.0)


def add_jobs(signs: Signs, statuses: Sequence[JobStatus]) -> None:
    """Add the jobs that failed, are late or paused."""
    signs.failed_jobs = [status.name for status in statuses if status.outcome == "failed"]
    signs.paused_jobs = [status.name for status in statuses if status.paused]
    signs.late_jobs = [status.name for status in statuses if status.late_since is not None]


def add_reads(signs: Signs, hour: Buckets) -> None:
    """Add what the last hour's counters say; events and errors are of its last ten minutes."""
    recent = total(dict(list(hour.items())[-RECENT_MINUTES:]))
    signs.p50_ms, _, signs.p99_ms = percentiles(recent.get(LATENCY, Counter()))
    asked = layers_of(recent.values())
    signs.load_errors, signs.loads = asked["errors"], asked["loaded"]
    views = {name: counters for name, counters in total(hour).items() if is_view(name)}
    found = layers_of(views.values())
    reads = sum(found[layer] for layer in CACHED)
    if reads >= ENOUGH_READS:
        signs.hit_rate = 1 - found["missed"] / reads
    for name, counters in views.items():
        if counters["hits_timed"] and (hit_ms := counters["hit_us"] / counters["hits_timed"] / 1000) > SLOW_HIT_MS:
            signs.slow_hits[name] = hit_ms
        cached = sum(layers_of([counters])[layer] for layer in CACHED)
        if counters["bypassed"] >= max(NEVER_CACHED, cached):
            signs.bypassed[name] = counters["bypassed"]
    signs.stale_detected = sum(counters["stale_detected"] for counters in views.values())
