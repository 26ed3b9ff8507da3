"""The metric table: what a process publishes of itself, under one prefix, whoever collects it. Pure.

Prometheus, OpenTelemetry, the Grafana dashboard and the alert rules are made from it. Labels are templates of views and
names of handlers and services, never keys: a million users are one series.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple

PREFIX = "cachebus_"
BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
HIT_BOUNDS_S = (5e-7, 1e-6, 2e-6, 5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 1e-3)

Kind = Literal["counter", "gauge", "histogram"]


class MetricRow(NamedTuple):
    """One metric. Its part, the first word of its name, is what it is about."""

    name: str
    """Without the prefix; counters without `_total`."""
    kind: Kind
    meaning: str
    labels: tuple[str, ...] = ()
    unit: str = ""
    """In UCUM, as OpenTelemetry wants it; '' for a count."""

    @property
    def published(self) -> str:
        """The name as Prometheus has it."""
        return f"{PREFIX}{self.name}{'_total' if self.kind == 'counter' else ''}"

    @property
    def part(self) -> str:
        """What it is about."""
        return self.name.partition("_")[0]


def _rows(kind: Kind, labels: tuple[str, ...], *rows: tuple[str, str] | tuple[str, str, str]) -> Iterable[MetricRow]:
    return (MetricRow(name, kind, meaning, labels, *unit) for name, meaning, *unit in rows)


_ROWS = (
    *_rows("counter", ("view", "layer"), ("cache_hits", 'Reads answered without a load, by "memory" or "redis".')),
    *_rows(
        "counter",
        ("view",),
        ("cache_loads", "Loads that a read waited for."),
        ("cache_load_errors", "Loads for a read that raised."),
        ("cache_misses", "Plain reads that found nothing."),
        ("cache_refreshes", "Loads behind readers, or after an event."),
        ("cache_warms", "Loads before anybody asked."),
        ("cache_background_errors", "Refreshes and warms that raised."),
        ("cache_joined", "Calls answered by a read of the same key that was under way."),
        ("cache_waits", "Times this process waited for another one's load."),
        ("cache_stale", "Values served past their TTL, within a declared window."),
        ("cache_bypassed", "Calls not cached: no identity, or switched off."),
        ("cache_direct", "Calls in handlers, which load and never serve."),
        ("cache_uncacheable", "Loaded values served without being stored."),
        ("cache_dropped", "Values that were old when `set` brought them."),
        ("cache_fill_errors", "Loaded values that could not be stored."),
        ("cache_raw_bytes", "Bytes of values before compression.", "By"),
        ("cache_stored_bytes", "Bytes of values as stored.", "By"),
        ("cache_invalidations", "Scopes of the view made unreadable here."),
        ("cache_samples", "Hits compared with the source."),
        ("cache_stale_detected", "Samples that nobody had invalidated."),
        ("cache_ahead_loads", "Loads ahead of an expected read; warms too."),
        ("cache_ahead_used", "Loads ahead that a read found."),
        ("cache_ahead_wasted", "Loads ahead that nobody read in time."),
        ("cache_ahead_refused", "Loads ahead not made: no budget, view busy."),
        ("cache_ahead_saved_seconds", "Waiting that loads ahead have saved.", "s"),
        ("cache_shadow_right", "Reads that would have been loaded ahead."),
        ("cache_shadow_wrong", "Expected reads that did not come."),
    ),
    *_rows(
        "histogram",
        ("view",),
        ("cache_load_seconds", "Time in the loader, whatever for, whether or not it raised.", "s"),
        ("cache_hit_seconds", "Time of a memory hit; one of 256 is timed.", "s"),
    ),
    *_rows(
        "gauge",
        (),
        ("cache_memory_entries", "Entries in this process's memory."),
        ("cache_memory_bytes", "Bytes of the entries in this process's memory.", "By"),
        ("cache_queued_invalidations", "Invalidations that wait for Redis."),
        ("cache_journal_age_seconds", "Since the journal was last heard of.", "s"),
        ("cache_ledger_seconds", "How far back the ledger remembers invalidations.", "s"),
        ("cache_redis_up", "1 while Redis answers."),
        ("cache_redis_refuses", "1 while Redis refuses reads although it answers."),
    ),
    *_rows(
        "counter",
        (),
        ("cache_evictions", "Entries that left memory for want of room."),
        ("cache_journal_gaps", "Times invalidations may have been missed."),
        ("cache_outlived", "Looks at entries of no use because they are older than all that the ledger remembers."),
    ),
    *_rows(
        "counter",
        ("shard",),
        ("bus_events", "Events whose effects are written."),
        ("bus_commits", "Batches of effects written."),
        ("bus_retries", "Events run once more."),
        ("bus_handled", "Runs of a handler that ended well."),
        ("bus_debounced", "Events that waited for the end of their window."),
        ("bus_dead_letters", "Events given up on."),
        ("bus_skipped", "Events on channels without a handler."),
        ("bus_takeovers", "Times this worker took a shard."),
        ("bus_gaps", "Times events may have been lost to somebody else's trim."),
    ),
    *_rows("counter", ("handler",), ("bus_handler_failures", "Runs of a handler that failed.")),
    *_rows(
        "gauge",
        ("shard",),
        ("bus_active", "1 while this worker handles the shard's events."),
        ("bus_waiting", "Events not handled yet."),
        ("bus_latency_seconds", "Publication to commit, of the last commit.", "s"),
    ),
    *_rows("histogram", (), ("bus_fresh_seconds", "Publication of an event until no process reads older values.", "s")),
    *_rows(
        "counter",
        (),
        ("bridge_heard", "Plain messages heard."),
        ("bridge_appended", "Plain messages this worker brought into the stream."),
        ("bridge_gaps", "Times this worker did not hear for a while."),
        ("refresh_loaded", "Entries loaded because an event asked for it."),
        ("refresh_fresh", "Entries that were fresh already."),
        ("refresh_not_worth", "Entries that were only invalidated: a read was not likely enough."),
        ("refresh_failed", "Loads that failed."),
        ("refresh_dead_letters", "Refreshes given up on."),
        ("delayed_published", "Delayed events that this worker published when they were due."),
        ("schedule_started", "Runs of jobs begun by this worker."),
        ("outbox_relayed", "Rows of the outbox this worker published."),
        ("outbox_refused", "Rows of the outbox that can never be published."),
    ),
    *_rows(
        "gauge",
        (),
        ("outbox_waiting", "Rows of the outbox not published yet."),
        ("outbox_lag_seconds", "How long the oldest of them has waited.", "s"),
        ("worker_ready", "1 while this worker does all its work."),
        ("worker_tasks", "Tasks of the event loop that have not ended."),
        ("worker_threads", "Threads of this process that Python knows."),
        (
            "worker_allocated_blocks",
            "Blocks that Python's allocator has in use: they grow with a leak of objects, and with nothing else.",
        ),
    ),
    *_rows("counter", ("service",), ("worker_restarts", "Times a service failed and was restarted.")),
    *_rows(
        "gauge",
        (),
        ("gateway_connections", "Browsers connected."),
        ("gateway_away", "1 while this gateway hears nothing new from Redis."),
        ("gateway_draining", "1 while it sends its browsers elsewhere."),
    ),
    *_rows(
        "counter",
        (),
        ("gateway_messages", "Broadcasts read from the feed."),
        ("gateway_sent", "Messages queued for browsers."),
        ("gateway_left_out", "Messages that browsers were too slow for."),
        ("gateway_resumed", "Connections that went on where they were."),
        ("gateway_resets", "Times a browser was told to fetch again."),
        ("gateway_slow", "Connections closed because they took nothing."),
    ),
)

TABLE = {row.name: row for row in _ROWS}
"""Every metric, by name without the prefix."""
