"""Targets 1 to 12: what a cache has to be, fresh, loading once, and fast."""

from __future__ import annotations

from functools import partial

from tests.docs.targets.evidence import (
    NEVER_STALE,
    Attacked,
    Part,
    Row,
    Said,
    Shown,
    Target,
    Unshown,
    at_least,
    at_most,
    benchmarked,
)

ON_ARRIVAL = (
    "Ours checks what it reads, in Python; neither of the two checks anything."
    " [More](benchmarks.md#what-is-missed-and-why)."
)


cache = partial(benchmarked, "cache")


FRESH = (
    Target(
        1,
        "Nothing stale is read, whatever happens in which order",
        (
            Part(
                "10,000 random schedules of three processes, of the rule itself: 0 stale",
                Attacked("rule", "schedules", 10_000),
                ("model/test_rule.py::test_no_schedule_of_three_processes_shows_a_stale_value",),
            ),
            Part(
                "Real processes, every way to read, to invalidate and to fail: 0 stale",
                NEVER_STALE,
                (
                    "faults/test_matrix.py::test_nobody_reads_what_is_stale",
                    "cache/test_processes.py::test_no_process_reads_what_its_journal_says_is_old",
                    "cache/test_processes.py::test_the_same_with_a_slow_network",
                ),
            ),
            Part(
                "Three processes, loads up to 200 ms: ours 0",
                Row("freshness", "cachebus, loads up to 200 ms", at_most(0)),
            ),
            Part(
                "What cashews does in the same harness is printed beside it",
                Row("freshness", "cashews, loads up to 200 ms", at_least(0.01)),
            ),
            Part(
                "What aiocache does there, too",
                Row("freshness", "aiocache, loads up to 200 ms", at_least(0.01)),
            ),
        ),
        ("freshness", "rule"),
    ),
    Target(
        2,
        "An invalidation soon holds in every other process, at 1,000 of them a second",
        (
            Part("p50 ≤ 2 ms", Row("journal", "invalidate called → unreadable elsewhere, p50", at_most(2))),
            Part("p99 ≤ 15 ms", Row("journal", "invalidate called → unreadable elsewhere, p99", at_most(15))),
        ),
    ),
    Target(
        3,
        "A process that does not hear of invalidations serves nothing that is stale",
        (
            Part(
                "Its connection killed again and again under load: 0 reads older than 250 ms",
                Shown("0, also while no new one is to be had"),
                ("freshness/test_heard.py::test_a_journal_that_is_cut_under_load_makes_nothing_old",),
            ),
            Part(
                "The same for 60 s on end",
                Unshown("cuts in cells of the fault matrix, of some half a minute each"),
                ("faults/test_matrix.py::test_nobody_reads_what_is_stale",),
                "No run of it lasts a minute by itself.",
            ),
            Part(
                "At least 90 % of the entries in memory that nobody touched survive",
                Shown("49 of 49"),
                ("freshness/test_fresh.py::test_a_cut_connection_costs_nothing_that_is_still_valid",),
            ),
            Part(
                "Packets dropped in silence: memory is trusted for 2 s at most, then the ledger is asked",
                Shown("2 s, by the rule; the test asks it a millisecond later"),
                (
                    "freshness/test_borders.py::test_a_table_is_trusted_so_long_and_no_longer",
                    "freshness/test_fresh.py::test_a_black_hole_is_noticed_and_survived",
                ),
            ),
            Part(
                "`CACHE_MAX_STALENESS=0`: 0 stale",
                NEVER_STALE,
                ("freshness/test_fresh.py::test_without_redis_memory_answers_only_as_long_as_it_may",),
            ),
        ),
        ("freshness",),
    ),
    Target(
        4,
        "A server that comes back empty, or as it was before, makes nothing stale",
        (
            Part(
                "Restarted empty or older, evicted, failed over to an older replica; all, some or no processes alive",
                Shown("0 stale, each fault with each of the three"),
                (
                    "freshness/test_eras.py::test_what_was_lost_is_never_taken_for_valid",
                    "freshness/test_fresh.py::test_a_server_that_loses_the_journal_or_ledger_shows_nothing_old",
                ),
            ),
        ),
        ("freshness",),
    ),
    Target(
        5,
        "A wall clock that is an hour wrong changes nothing",
        (
            Part("Reads: 0 stale", Attacked("freshness", "clocks jumped", 1)),
            Part(
                "Schedules and sessions: the same starts, the same sessions",
                Shown("the same, an hour ahead and behind"),
                (
                    "schedules/test_one_start.py::test_a_clock_that_is_an_hour_wrong_changes_nothing",
                    "sessions/test_sessions_time.py::test_no_clock_of_a_process_matters",
                ),
            ),
        ),
        ("freshness", "schedules", "sessions"),
    ),
)
ONE_LOAD = (
    Target(
        6,
        "8 processes of 50 callers ask for a cold key",
        (
            Part(
                "Exactly 1 load",
                Shown("1"),
                ("cache/test_processes.py::test_eight_processes_of_fifty_callers_cause_one_load",),
            ),
            Part(
                "Everybody is answered within 25 ms of the fill",
                Row("stampede", "cachebus", at_most(25), r"waited (-?[\d,.]+ ms)"),
                why="Eight processes of fifty callers wake at once on two cores; without any lock, in a library that"
                " loads eight times, that takes half as long. It grows with what else the machine has to do.",
            ),
            Part(
                "At most 4 commands of each process that waits",
                Unshown(),
                why="No test and no benchmark counts the commands of a process while it waits.",
            ),
        ),
    ),
    Target(
        7,
        "A process that loads is killed, or stands still",
        (
            Part(
                "Killed: the next one loads",
                Shown("it does, once"),
                ("cache/test_processes.py::test_a_loader_that_is_killed_is_replaced_when_its_lease_ends",),
            ),
            Part(
                "At the latest when the lease ends, after 3 s",
                Unshown(),
                why="Redis ends the lease after 3 s; how long the next caller waits is not timed.",
            ),
            Part(
                "Late, it overwrites nothing newer",
                Shown("stored only if nobody has loaded since"),
                ("cache/test_long_loads.py::test_what_an_overdue_load_returns_is_stored_if_nobody_has_loaded_since",),
            ),
            Part(
                "Stopped with SIGSTOP in the midst of reads: nothing stale",
                NEVER_STALE,
                ("faults/test_matrix.py::test_nobody_reads_what_is_stale",),
            ),
        ),
        ("freshness",),
    ),
    Target(
        8,
        "Callers that share a load",
        (
            Part(
                "Any k of n are cancelled: 1 load, n - k answers",
                Shown("1 load, 10 - k answers, for each k of 10"),
                ("cache/test_shared_loads.py::test_cancelling_some_waiters_cancels_nobody_else",),
            ),
            Part(
                "The loader raises: called once, the same exception for all",
                Shown("1 call, 10 exceptions"),
                ("cache/test_shared_loads.py::test_a_failing_loader_is_called_once_and_all_get_its_exception",),
            ),
        ),
    ),
    Target(
        9,
        "Round trips of a read",
        (
            Part(
                "Memory 0, Redis 1, a miss and its fill 2",
                Shown("0, 1, 2"),
                ("cache/test_reads.py::test_a_read_costs_what_is_promised",),
            ),
            Part(
                "A miss of a view that mostly hits: 3",
                Shown("3: look, claim and fill"),
                ("cache/test_redis_hits.py::test_a_view_that_mostly_hits_runs_no_script",),
            ),
        ),
    ),
)
FAST = (
    Target(
        10,
        "A hit in memory, CPU time of the client",
        (
            cache("cashews takes ≥ 30 × ours", "memory hit: cashews over ours", "≥ 30"),
            cache("≤ 2 × cachebox, which shares nothing", "memory hit: ours over cachebox", "≤ 2"),
            cache("By keyword ≤ 1.6 × the plain call", "memory hit, by keyword, over the first", "≤ 1.6"),
            cache("Without Redis ≤ 1.6 ×", "memory hit, without Redis, over the first", "≤ 1.6"),
            cache(
                "After any foreign invalidation, 5 tags, ≤ 1.6 ×",
                "memory hit, after any invalidation, 5 tags, over the first",
                "≤ 1.6",
            ),
            cache("The same, 20 tags, ≤ 2.2 ×", "memory hit, after any invalidation, 20 tags, over the first", "≤ 2.2"),
            cache("Without an event loop ≤ 1.2 ×", "memory hit, synchronous, over the first", "≤ 1.2"),
        ),
    ),
    Target(
        11,
        "A hit in Redis, CPU time",
        (
            cache("50 callers: cashews takes ≥ 13 × ours", "Redis hit, 50 callers: cashews, over ours", "≥ 13"),
            cache(
                "redis-py, a `GET` a call, ≥ 5.5 ×",
                "Redis hit, 50 callers: redis-py, GET and decode, over ours",
                "≥ 5.5",
            ),
            cache(
                "One `MGET` a tick by hand ≥ 0.7 ×",
                "Redis hit, 50 callers: redis-py, one MGET a tick by hand, checks nothing, over ours",
                "≥ 0.7",
                why=ON_ARRIVAL,
            ),
            cache(
                "valkey-glide ≥ 3.2 ×",
                "Redis hit, 50 callers: valkey-glide, GET and decode, over ours",
                "≥ 3.2",
                why=ON_ARRIVAL,
            ),
            cache(
                "The server, a read, ≤ 1 µs",
                "Redis hit, 50 callers: server",
                "≤ 1",
                why="What the command and its reply cost here, by hand as well.",
            ),
            cache(
                "1 caller ≤ 0.7 × redis-py",
                "Redis hit, 1 caller: ours over redis-py",
                "≤ 0.7",
                why="Waiting for one reply is most of it, in either library.",
            ),
            cache(
                "`get_many(100)` ≤ 1.5 × redis-py's `MGET` and decoding",
                "get_many(100) from Redis: ours over redis-py",
                "≤ 1.5",
                why="Each of the 100 is judged, and its header decoded.",
            ),
            cache("The same from memory, a key, ≤ 0.7 µs", "get_many(100) from memory, a key", "≤ 0.7"),
            cache(
                "A cluster of three ≤ 1.2 × one node, client",
                "Redis hit, cluster of three over one node, client",
                "≤ 1.2",
                why="Three connections are written and read, where one node has one.",
            ),
            cache(
                "A cluster of three, all servers, ≤ 1 µs",
                "Redis hit, cluster of three: all servers",
                "≤ 1",
                why="Three servers run a command each, where one node runs one for all of a tick.",
            ),
        ),
    ),
    Target(
        12,
        "Tags cost little, however many entries they have",
        (
            Part(
                "An invalidation of a tag of 1,000,000 entries ≤ 1.5 × one of 10",
                Said(
                    "explain/scale.md",
                    r"scopes in the ledger \| 100 … 1,000,000 \| an invalidation stays: server (\d+) to (\d+) µs alone",
                    lambda found: found[1] <= 1.5 * found[0],
                    "it touches no entry; {} to {} µs of the server, with 100 to 1,000,000 scopes in the ledger",
                ),
            ),
            cache("A hit in Redis with 5 tags ≤ 1.3 × one with none", "Redis hit with 5 tags over none", "≤ 1.3"),
        ),
    ),
)
