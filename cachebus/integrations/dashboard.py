"""A Grafana dashboard and Prometheus alert rules, made from the metric table. Pure.

A name that is not in the table is a KeyError here, so neither can ask for what nobody publishes.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

from cachebus.integrations.metric_table import TABLE, MetricRow

TITLES = {
    "cache": "Cache",
    "bus": "Events",
    "bridge": "Plain messages",
    "refresh": "Refreshes",
    "delayed": "Delayed events",
    "schedule": "Schedules",
    "outbox": "Outbox",
    "worker": "Workers",
    "gateway": "Gateways",
}
UNITS = {"s": "s", "By": "bytes"}
QUANTILES = (0.5, 0.95, 0.99)
ACROSS, HIGH, WIDTH = 24, 8, 8
"""Grafana's grid has 24 columns."""
SOURCE = {"type": "prometheus", "uid": "${datasource}"}


class Alert(NamedTuple):
    """One rule. *seconds*: how long it must hold."""

    name: str
    expression: str
    seconds: int
    severity: str
    summary: str
    fix: str


def name_of(metric: str, suffix: str = "") -> str:
    """Return a metric as Prometheus has it. Raises: KeyError for one that nobody publishes."""
    row = TABLE[metric]
    return row.published + suffix


def _rate(metric: str, by: str, over: str = "5m") -> str:
    return f"sum by ({by}) (rate({name_of(metric)}[{over}]))"


def _moved(metric: str, by: str) -> str:
    return f"sum by ({by}) (increase({name_of(metric)}[15m])) > 0"


def _highest(metric: str, by: str = "job") -> str:
    return f"max by ({by}) ({name_of(metric)})"


def alerts() -> Iterator[Alert]:
    """Yield the rules, the most urgent first."""
    yield Alert(
        "CachebusNoWorkerReady",
        f"{_highest('worker_ready')} == 0",
        60,
        "critical",
        "No worker does all its work",
        "read `why` in /readyz of a worker, then `cachebus doctor`",
    )
    yield Alert(
        "CachebusShardWithoutWorker",
        f"{_highest('bus_active', 'job, shard')} == 0",
        60,
        "critical",
        "Nobody handles the events of shard {{ $labels.shard }}",
        "start a worker; `cachebus stats` says who holds it",
    )
    yield Alert(
        "CachebusRedisDown",
        f"min by (job, instance) ({name_of('cache_redis_up')}) == 0",
        60,
        "critical",
        "{{ $labels.instance }} has no connection to Redis",
        "its log says why: `redis unavailable`",
    )
    yield Alert(
        "CachebusRedisRefuses",
        f"{_highest('cache_redis_refuses', 'job, instance')} == 1",
        60,
        "critical",
        "Redis refuses the reads of {{ $labels.instance }}, everything is loaded",
        "`cachebus doctor` names the fix",
    )
    yield Alert(
        "CachebusEventsLost",
        _moved("bus_gaps", "job, shard"),
        0,
        "critical",
        "Somebody else trimmed the events of shard {{ $labels.shard }}",
        "look for XTRIM or MAXLEN in other programs",
    )
    yield Alert(
        "CachebusEventsWait",
        f"{_highest('bus_waiting', 'job, shard')} > 1000",
        300,
        "warning",
        "{{ $value }} events of shard {{ $labels.shard }} wait",
        "find the slow handler, or raise BUS_SHARDS",
    )
    late = f"histogram_quantile(0.99, sum by (job, le) (rate({name_of('bus_fresh_seconds', '_bucket')}[5m]))) > 1"
    yield Alert(
        "CachebusEventsLate",
        late,
        300,
        "warning",
        "Events take {{ $value | humanizeDuration }} until nobody reads older values",
        "see CachebusEventsWait",
    )
    yield Alert(
        "CachebusDeadLetters",
        _moved("bus_dead_letters", "job"),
        0,
        "warning",
        "{{ $value }} events were given up on",
        "`cachebus letters list`",
    )
    yield Alert(
        "CachebusRefreshesGivenUp",
        _moved("refresh_dead_letters", "job"),
        0,
        "warning",
        "{{ $value }} refreshes were given up on",
        "`cachebus letters list`",
    )
    yield Alert(
        "CachebusOutboxLate",
        f"{_highest('outbox_lag_seconds')} > 10",
        120,
        "warning",
        "Rows of the outbox have waited for {{ $value | humanizeDuration }}",
        "is a worker with OUTBOX running?",
    )
    yield Alert(
        "CachebusOutboxRefused",
        _moved("outbox_refused", "job"),
        0,
        "warning",
        "Rows of the outbox can never be published",
        "their column `problem` says why",
    )
    yield Alert(
        "CachebusServiceRestarts",
        f"sum by (job, service) (increase({name_of('worker_restarts')}[15m])) > 2",
        0,
        "warning",
        "Service {{ $labels.service }} of a worker fails again and again",
        "its log has the traceback",
    )
    yield Alert(
        "CachebusInvalidationsQueued",
        f"{_highest('cache_queued_invalidations', 'job, instance')} > 0",
        60,
        "warning",
        "Invalidations of {{ $labels.instance }} wait for Redis",
        "see CachebusRedisDown",
    )
    yield Alert(
        "CachebusJournalBehind",
        f"{_highest('cache_journal_age_seconds', 'job, instance')} > 2",
        60,
        "warning",
        "{{ $labels.instance }} does not hear invalidations",
        "is it short of CPU? Its reads ask Redis meanwhile",
    )
    yield Alert(
        "CachebusWritePathUnannounced",
        _moved("cache_stale_detected", "job, view"),
        0,
        "warning",
        "{{ $labels.view }} changed and nothing invalidated it",
        "publish an event where the data are written",
    )
    failed = f"{_rate('cache_load_errors', 'job, view')} > 0.05 * {_rate('cache_loads', 'job, view')}"
    yield Alert(
        "CachebusLoadsFail",
        failed,
        300,
        "warning",
        "More than one load of {{ $labels.view }} in twenty fails",
        "look at its source",
    )
    hits, loads = _rate("cache_hits", "job, view", "30m"), _rate("cache_loads", "job, view", "30m")
    yield Alert(
        "CachebusFewHits",
        f"({hits} / ({hits} + {loads}) < 0.8) and {loads} > 1",
        1800,
        "info",
        "{{ $value | humanizePercentage }} of the reads of {{ $labels.view }} are hits",
        "a longer ttl, or fewer tags",
    )
    yield Alert(
        "CachebusGatewayAway",
        f"{_highest('gateway_away', 'job, instance')} == 1",
        60,
        "critical",
        "Gateway {{ $labels.instance }} hears nothing new",
        "see CachebusRedisDown",
    )


def rules() -> dict[str, Any]:
    """Return the alert rules as Prometheus reads them: a rule file, in the part of YAML that is JSON."""
    made = [
        {
            "alert": alert.name,
            "expr": alert.expression,
            "for": f"{alert.seconds}s",
            "labels": {"severity": alert.severity},
            "annotations": {"summary": alert.summary, "description": f"What to do: {alert.fix}."},
        }
        for alert in alerts()
    ]
    return {"groups": [{"name": "cachebus", "rules": made}]}


def dashboard() -> dict[str, Any]:
    """Return the dashboard as Grafana imports it: a panel for each metric, a row for each part."""
    numbers = itertools.count(1)
    panels: list[dict[str, Any]] = []
    y = 0
    for part, title in TITLES.items():
        panels.append({**_place(next(numbers), 0, y, ACROSS, 1), "type": "row", "title": title, "panels": []})
        y += 1
        rows = [row for row in TABLE.values() if row.part == part]
        for at, row in enumerate(rows):
            x, line = at % (ACROSS // WIDTH) * WIDTH, at // (ACROSS // WIDTH)
            panels.append({**_place(next(numbers), x, y + line * HIGH, WIDTH, HIGH), **_panel(row)})
        y += -(-len(rows) // (ACROSS // WIDTH)) * HIGH
    return {
        "title": "cachebus",
        "uid": "cachebus",
        "schemaVersion": 39,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [_sources(), _jobs()]},
        "panels": panels,
    }


def _sources() -> dict[str, Any]:
    return {"name": "datasource", "type": "datasource", "query": "prometheus"}


def _jobs() -> dict[str, Any]:
    query = f"label_values({name_of('cache_redis_up')}, job)"
    return {
        "name": "job",
        "type": "query",
        "datasource": SOURCE,
        "query": query,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "refresh": 2,
    }


def _place(number: int, x: int, y: int, width: int, height: int) -> dict[str, Any]:
    return {"id": number, "gridPos": {"x": x, "y": y, "w": width, "h": height}}


def _panel(row: MetricRow) -> dict[str, Any]:
    title = row.name.partition("_")[2].replace("_", " ")
    counts = row.kind == "counter"
    unit = "Bps" if counts and row.unit == "By" else UNITS.get(row.unit, "ops" if counts else "short")
    return {
        "type": "timeseries",
        "title": title + (" per second" if counts else ""),
        "description": f"{row.meaning} {row.published}",
        "datasource": SOURCE,
        "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + at), "datasource": SOURCE, "expr": expression, "legendFormat": legend}
            for at, (expression, legend) in enumerate(_expressions(row))
        ],
    }


def _expressions(row: MetricRow) -> Iterator[tuple[str, str]]:
    by, legend = ", ".join(row.labels), " ".join(f"{{{{{label}}}}}" for label in row.labels)
    own = '{job=~"$job"}'
    if row.kind == "histogram":
        for quantile in QUANTILES:
            buckets = f"sum by ({', '.join((*row.labels, 'le'))}) (rate({row.published}_bucket{own}[$__rate_interval]))"
            yield f"histogram_quantile({quantile}, {buckets})", f"p{quantile * 100:g} {legend}".strip()
    elif row.kind == "counter":
        yield f"sum by ({by}) (rate({row.published}{own}[$__rate_interval]))", legend or "all"
    else:
        yield f"max by ({by or 'instance'}) ({row.published}{own})", legend or "{{instance}}"
