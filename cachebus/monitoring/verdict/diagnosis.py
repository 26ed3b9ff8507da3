"""What `doctor` concludes from what it sees. Pure: facts in, findings out, each with the fix."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from ipaddress import ip_address
from typing import NamedTuple

from cachebus.cache.upkeep.reporter import ProcessReport
from cachebus.freshness.era import WHY, Era

OLDEST_HIREDIS = (3, 4, 2)
"""Below this hiredis leaks a list for each RESP3 push (hiredis-py#235)."""
CONNECTIONS_A_WORKER = 4
"""Commands, journal, events, pub/sub."""
FULL = 0.8
"""Of memory or connections: the specification's bound."""
SKEW_S = 5.0
SLOW_MS = 5.0
"""The specification wants hits below this; a round trip this long leaves no room."""


class Grade(Enum):
    """How bad it is."""

    OK = "ok"
    WARNING = "warn"
    BAD = "BAD"


class Finding(NamedTuple):
    """One conclusion; `fix` is '' where nothing needs to be done."""

    grade: Grade
    what: str
    fix: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """What was seen of one server. `info` is INFO, flat; `refused` what the user may not ask."""

    name: str
    host: str
    info: Mapping[str, str]
    keeps: bool
    """Whether it holds what must not be evicted: ledger, bus, locks, sessions."""
    caches: bool
    """Whether it holds entries."""
    tls: bool = False
    round_trip_ms: float = 0.0
    skew_s: float = 0.0
    max_clients: int | None = None
    known_commands: bool = True
    slots: bool = False
    """Whether it is one endpoint before many shards."""
    refused: tuple[str, ...] = field(default=())


def judge(facts: Facts) -> Iterator[Finding]:
    """Yield what the facts of one server mean."""
    yield _version(facts)
    if facts.info:
        yield from _role(facts)
        yield from _eviction(facts)
        yield from _memory(facts)
        yield from _persistence(facts)
        yield from _connections(facts)
    else:
        yield Finding(Grade.OK, f"{facts.name}: INFO is refused: memory, eviction, persistence and connections unknown")
    if facts.slots:
        yield Finding(Grade.OK, f"{facts.name}: one endpoint before many shards, keys are grouped by slot")
    yield from _line(facts)
    for command in facts.refused:
        yield Finding(
            Grade.BAD, f"{facts.name}: the user may not run {command}", f"ACL SETUSER <user> +{command.lower()}"
        )


def _version(facts: Facts) -> Finding:
    info = facts.info
    kind = info.get("server_name", "redis")
    version = info.get(f"{kind}_version") or info.get("redis_version", "of unknown version")
    if not facts.known_commands:
        return Finding(Grade.BAD, f"{facts.name}: {kind} {version} is too old", "use Redis 6.2 or newer, or Valkey")
    return Finding(Grade.OK, f"{facts.name}: {kind} {version} at {facts.host}")


def _role(facts: Facts) -> Iterator[Finding]:
    if facts.info.get("role") == "slave":
        yield Finding(Grade.BAD, f"{facts.name}: is a replica, it refuses writes", "point the URL at the primary")
    if facts.info.get("loading") == "1":
        yield Finding(Grade.WARNING, f"{facts.name}: is loading its data", "wait")


def _eviction(facts: Facts) -> Iterator[Finding]:
    policy = facts.info.get("maxmemory_policy")
    if policy is None:
        return
    limit = int(facts.info.get("maxmemory", 0))
    if facts.keeps and policy != "noeviction":
        grade = Grade.BAD if limit else Grade.WARNING
        fix = "CONFIG SET maxmemory-policy noeviction"
        if facts.caches:
            fix += ", or give what must not be evicted a server of its own: STORE_REDIS_URL"
        yield Finding(grade, f"{facts.name}: maxmemory-policy {policy} may evict events, locks and sessions", fix)
    elif facts.caches and not facts.keeps and policy == "noeviction" and limit:
        what = f"{facts.name}: holds only cached values and refuses writes when it is full"
        yield Finding(Grade.WARNING, what, "CONFIG SET maxmemory-policy allkeys-lru")
    else:
        yield Finding(Grade.OK, f"{facts.name}: maxmemory-policy {policy}")
    if facts.keeps and (evicted := int(facts.info.get("evicted_keys", 0))) and policy != "noeviction":
        what = f"{facts.name}: {evicted:,} keys were evicted since it started"
        yield Finding(Grade.BAD, what, "raise maxmemory, then see the line above")


def _memory(facts: Facts) -> Iterator[Finding]:
    used, limit = int(facts.info.get("used_memory", 0)), int(facts.info.get("maxmemory", 0))
    if not limit:
        if facts.caches:
            what = f"{facts.name}: no maxmemory, {used // 2**20:,} MB used"
            yield Finding(Grade.WARNING, what, "CONFIG SET maxmemory <most of what the machine can spare>")
        return
    share = used / limit
    grade = Grade.WARNING if share > FULL else Grade.OK
    fix = "raise maxmemory, shorten TTLs, or bound what is cached" if grade is Grade.WARNING else ""
    yield Finding(grade, f"{facts.name}: {share:.0%} of {limit // 2**20:,} MB used", fix)


def _persistence(facts: Facts) -> Iterator[Finding]:
    enabled = facts.info.get("aof_enabled")
    if not facts.keeps or enabled is None:
        return
    if enabled == "1":
        yield Finding(Grade.OK, f"{facts.name}: append-only file, a restart loses at most a second")
    else:
        what = f"{facts.name}: no append-only file, a restart loses events that were not handled"
        yield Finding(Grade.WARNING, what, "CONFIG SET appendonly yes")


def _connections(facts: Facts) -> Iterator[Finding]:
    used = int(facts.info.get("connected_clients", 0))
    if not facts.max_clients:
        return
    left = facts.max_clients - used
    what = f"{facts.name}: {used} of {facts.max_clients} connections used"
    if left < CONNECTIONS_A_WORKER:
        fix = f"a worker needs {CONNECTIONS_A_WORKER}: take a larger plan, or end what leaks connections"
        yield Finding(Grade.BAD, what, fix)
    elif used > FULL * facts.max_clients:
        fix = f"room for {left // CONNECTIONS_A_WORKER} more workers: take a larger plan before there are more"
        yield Finding(Grade.WARNING, what, fix)
    else:
        yield Finding(Grade.OK, what)


def _line(facts: Facts) -> Iterator[Finding]:
    if not facts.tls and not _private(facts.host):
        what = f"{facts.name}: not encrypted, on a public address"
        yield Finding(Grade.WARNING, what, "use rediss://, or the platform's private network (REDIS_PRIVATE_URL)")
    slow = facts.round_trip_ms > SLOW_MS
    fix = "place the app and Redis in one region" if slow else ""
    yield Finding(Grade.WARNING if slow else Grade.OK, f"{facts.name}: {facts.round_trip_ms:.1f} ms a round trip", fix)
    skewed = abs(facts.skew_s) > SKEW_S
    what = f"{facts.name}: its clock and ours differ by {facts.skew_s:+.1f} s; only the times in logs suffer"
    yield Finding(Grade.WARNING if skewed else Grade.OK, what, "run NTP on both machines" if skewed else "")


def _private(host: str) -> bool:
    """Return whether traffic to *host* stays on this machine or a private network, as far as its name tells."""
    try:
        return ip_address(host).is_private
    except ValueError:
        return host.startswith("/") or "." not in host or host.endswith((".internal", ".local", ".svc"))


def judge_era(era: Era, began: str, *, trusts_restarts: bool, fsync: str | None) -> Iterator[Finding]:
    """Yield what the present era means. *began*: when, as text. *fsync*: how often the server's file is flushed."""
    why = WHY.get(era.why, era.why)
    if era.why == "absurd":
        fix = "find the program that writes into this namespace's ledger or journal, or sets the server's clock"
        yield Finding(Grade.WARNING, f"freshness: a new era began at {began}, the cache was cold: {why}", fix)
    else:
        yield Finding(Grade.OK, f"freshness: the present era began at {began}: {why}")
    if trusts_restarts and fsync not in (None, "always"):
        what = f"CACHE_TRUST_RESTARTS: the server flushes its file {fsync}, a crash loses invalidations"
        yield Finding(Grade.BAD, what, "CONFIG SET appendfsync always, or unset CACHE_TRUST_RESTARTS")


def judge_reads(processes: Iterable[ProcessReport]) -> Iterator[Finding]:
    """Yield a finding for each process whose reads Redis refuses: it loads everything, and stores nothing."""
    for process in processes:
        if process.refused:
            fix = "correct what the server says; doctor with that process's REDIS_URL names a missing access rule"
            yield Finding(Grade.BAD, f"{process.name}: Redis refuses its reads: {process.refused}", fix)


def judge_installation(hiredis: str | None, uvloop: bool) -> Iterator[Finding]:
    """Yield what the installed packages mean. *hiredis*: its version, None where it is missing."""
    if hiredis is None:
        yield Finding(Grade.BAD, "hiredis is missing", "pip install 'redis[hiredis]'")
    elif tuple(int(part) for part in hiredis.split(".")[:3] if part.isdigit()) < OLDEST_HIREDIS:
        wanted = ".".join(map(str, OLDEST_HIREDIS))
        yield Finding(Grade.BAD, f"hiredis {hiredis} leaks memory on pushes", f"pip install 'hiredis>={wanted}'")
    else:
        yield Finding(Grade.OK, f"hiredis {hiredis}")
    yield Finding(Grade.OK, "uvloop is used" if uvloop else "uvloop is not installed: asyncio's own loop is used")
