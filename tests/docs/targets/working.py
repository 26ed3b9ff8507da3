"""Targets 13 to 26: what events, schedules, locks and browsers need: speed, and that nothing is lost."""

from __future__ import annotations

from functools import partial

from tests.docs.targets.evidence import (
    Attacked,
    Nearly,
    Part,
    Row,
    Said,
    Shown,
    Target,
    Unshown,
    Wanted,
    at_least,
    at_most,
    benchmarked,
    none_more,
)

BENCHMARKS = "reference/benchmarks.md"


bus = partial(benchmarked, "bus")


FAST = (
    Target(
        13,
        "An event published, handled and committed, CPU time",
        (
            bus("FastStream takes ≥ 25 × ours", "FastStream over ours", "≥ 25"),
            bus("taskiq takes ≥ 12 × ours", "taskiq over ours", "≥ 12"),
            bus("The server ≤ 13 µs an event", "server, publish + handle + commit", "≤ 13"),
            bus(
                "The server ≤ 1.5 × the same commands raw",
                "the same over the raw commands",
                "≤ 1.5",
                why="The script checks lease, position and number of the commit, and moves the clock of each scope; the"
                " raw commands check nothing, and go in pipelines of 500.",
            ),
            Part(
                "The sustained rate, by arithmetic, is told",
                Row("bus", "sustained by arithmetic, cachebus", at_least(1)),
            ),
            Part(
                "10,000 invalidations of 10 scopes in one burst ≤ 20 scripts",
                Shown("at most 20"),
                ("freshness/test_fresh.py::test_ten_thousand_invalidations_in_one_burst_are_few_scripts",),
            ),
            Part(
                "10,000 events of 10 scopes in one burst ≤ 20 ledger writes of the worker",
                Shown("up to 50, one for each 200 events that are read at once", enough=False),
                ("bus/test_consumer.py::test_equal_invalidations_of_a_burst_are_written_once",),
                "A commit is of one batch, and a batch of 200 events at most: 10,000 are 50 of them.",
            ),
        ),
    ),
    Target(
        14,
        "From `publish()` to the feed, at 1,000 events a second",
        (
            bus("p50 ≤ 1 ms", "publish to feed at 1,000/s, p50", "≤ 1"),
            bus(
                "p99 ≤ 1.5 × a bare `XADD` to `XREAD`",
                "publish to feed at 1,000/s, p99 over a bare XADD to XREAD",
                "≤ 1.5",
                why="Between the two lie a handler and a commit; the bare way is one command and one reply.",
            ),
            Part(
                "A publication is 1 round trip",
                Shown("1 script, for all that is published in a tick"),
                ("bus/test_publish.py::test_what_is_published_together_is_one_call",),
            ),
        ),
    ),
    Target(
        15,
        "A worker that has nothing to do, or no Redis",
        (
            Part(
                "Idle: ≤ 4 commands a second over ≤ 4 connections",
                Shown("4 and 4, at most"),
                ("bus/test_idle.py::test_idle_parts_send_at_most_four_commands_a_second_over_four_connections",),
            ),
            Part(
                "Idle: ≤ 1 % of a core",
                Said(BENCHMARKS, r"It takes ([\d.]+) % of one core", at_most(1), "{} %"),
            ),
            Part(
                "Redis away: one line when it goes, one when it is back",
                Shown("one each"),
                (
                    "acceptance/test_process.py::test_redis_restarted_under_it_is_survived",
                    "redis/test_lateness.py::test_an_outage_is_logged_once",
                ),
            ),
            Part(
                "Redis away: ≤ 1 attempt to connect a second",
                Unshown("six attempts take more than 4 s"),
                ("acceptance/test_process.py::test_a_server_that_hangs_up_is_not_stormed",),
                "The test allows five attempts in four seconds.",
            ),
            Part("Redis away: ≤ 2 % of a core", Unshown(), why="Nothing measures it."),
        ),
    ),
    Target(
        16,
        "A worker that starts before 1,000,000 events",
        (
            Part(
                "≤ 50 MB more of resident memory",
                Said(
                    BENCHMARKS,
                    r"(?:resident memory more than without \|"
                    r"|a worker that starts before 1,000,000 events takes) (-?[\d.]+) MB",
                    at_most(50),
                    "{} MB",
                ),
            ),
            Part("It begins at once", Unshown(), why="Nothing measures how long it takes until the first event."),
        ),
    ),
    Target(
        17,
        "The gateway with 1,000 clients",
        (
            Part(
                "A message is encoded once, for everybody",
                Shown("one and the same text"),
                ("gateway/test_hub.py::test_a_message_is_encoded_once",),
            ),
            Part(
                "50 that stall cost the others ≤ 10 % at p99 (at 10 messages a second to each)",
                Wanted("gateway", "50 stalled of 1,000, p99 of the others", "≤ 1.1"),
                ("gateway/test_sockets.py::test_stalled_clients_hold_up_nobody",),
            ),
            Part(
                "≥ 100,000 deliveries a second in memory",
                Unshown(),
                why="The benchmark sends 10,000 a second over real sockets, gateway and clients in one process.",
            ),
        ),
    ),
)
NOTHING_LOST = (
    Target(
        18,
        "Workers are killed",
        (
            Part(
                "200 × `kill -9` over 20,000 events: 0 lost, 0 twice",
                Said(
                    BENCHMARKS,
                    r"lost, written twice, invented" + r" \| (\d+), (\d+), (\d+)" * 4,
                    at_most(0),
                    "{}, {}, {} (lost, twice, invented), and the same in three more runs",
                ),
                (
                    "bus/test_crashes.py::test_every_fault_at_random_loses_nothing_and_doubles_nothing",
                    "bus/test_takeover.py::test_random_kills_lose_nothing_double_nothing_and_keep_the_order",
                ),
            ),
            Part("Killed again, with other faults: 0 lost, 0 twice, in order", Attacked("bus", "kill", 50)),
            Part(
                "Order is kept",
                Said(
                    BENCHMARKS,
                    r"out of order: events, plain messages \| [^|]* \| [^|]* \| (\d+), \d+ \| (\d+), \d+ \|",
                    at_most(0),
                    "{} and {} events, in the two runs that tell them from plain messages",
                ),
                ("bus/test_takeover.py::test_random_kills_lose_nothing_double_nothing_and_keep_the_order",),
            ),
            Part(
                "Another worker has taken over within 6 s, p99, with the default lease of 5 s",
                Nearly(
                    Said(
                        BENCHMARKS,
                        r"the same: p99, most" + r" \| ([\d.]+), [\d.]+ s" * 4,
                        at_most(6),
                        "{}, {}, {} and {} s, with a lease of 500 ms",
                    )
                ),
                ("bus/test_takeover.py::test_a_standby_takes_over_when_the_lease_has_run_out",),
                "The runs that were timed had a tenth of the default lease.",
            ),
            Part(
                "Plain `PUBLISH` too, while one worker listens",
                Shown("0 lost, 0 twice"),
                ("bus/test_bridge.py::test_a_worker_may_come_and_go_while_another_stays",),
            ),
        ),
        ("bus", "fleet"),
    ),
    Target(
        19,
        "Redis restarts, or cannot be reached",
        (
            Part(
                "Restarted with its append-only file: 0 lost, in order",
                Shown("0 of 600, two restarts"),
                (
                    "bus/test_outages.py::test_a_restart_with_its_data_loses_and_doubles_nothing",
                    "acceptance/test_events.py::test_redis_restarted_in_the_middle_loses_nothing",
                ),
            ),
            Part("Working again ≤ 2 s after it is back", Unshown(), why="The tests wait for it, and time nothing."),
            Part(
                "Cut off for 5 s, while 5,000 events are published: 0 lost, in order",
                Shown("0 of 5,000, until a lease of 5 s has ended"),
                (
                    "bus/test_cut_off.py::test_five_thousand_events_published_while_the_worker_is_cut_off_are_each"
                    "_handled_once_in_order",
                ),
            ),
        ),
        ("bus",),
    ),
    Target(
        20,
        "Replies of publications are lost",
        (
            Part(
                "1,000 of them: 0 duplicates",
                Shown("0 of 1,000"),
                ("bus/test_publish.py::test_a_lost_reply_is_repeated_and_never_doubles_the_event",),
            ),
        ),
    ),
    Target(
        21,
        "The server refuses: READONLY, OOM, NOPERM, WRONGTYPE, BUSY, NOAUTH, NOSCRIPT",
        (
            Part(
                "No task dies, and there are as many as before",
                Shown("none, as many"),
                ("bus/test_outages.py::test_a_server_that_refuses_is_waited_for_and_no_task_dies",),
            ),
            Part("Work resumes ≤ 2 s after it clears", Unshown(), why="The test waits for it, and times nothing."),
        ),
        ("bus",),
    ),
    Target(
        22,
        "A subscription that has gone deaf is noticed",
        (
            Part(
                "Dropped by the server, or swallowed: subscribed anew",
                Shown("both"),
                (
                    "bus/test_bridge.py::test_a_dropped_subscription_is_noticed_counted_and_made_again",
                    "bus/test_cut_off.py::test_half_open_connections_are_noticed_by_whoever_only_listens",
                ),
            ),
            Part("Within 10 s", Unshown(), why="The tests wait for it, up to 30 s, and time nothing."),
        ),
    ),
    Target(
        23,
        "Schedules and locks",
        (
            Part(
                "200 kills of the holder, and stops longer than the lease: 0 double starts, 0 missed",
                Attacked("schedules", "kill", 200),
                (
                    "schedules/test_processes.py::test_killed_and_frozen_workers_start_nothing_twice",
                    "schedules/test_one_start.py::test_each_fire_time_starts_once_whoever_is_there",
                ),
            ),
            Part(
                "Days on which clocks change",
                Shown("as a clock that is looked at every minute"),
                (
                    "schedules/test_firetimes.py::test_a_calendar_agrees_with_looking_at_a_clock_every_minute",
                    "schedules/test_firetimes.py::test_the_days_of_a_change_agree_with_a_clock",
                ),
            ),
            Part(
                "A lock is kept for 5 times its timeout",
                Shown("16 renewals, a third of the timeout apart"),
                ("locks/test_locks.py::test_a_lock_held_for_longer_than_its_timeout_is_kept",),
            ),
            Part(
                "1,000 writes with an old fencing number: refused",
                Shown("1,000 of 1,000"),
                ("locks/test_locks.py::test_a_thousand_stale_writes_are_refused",),
            ),
        ),
        ("schedules", "locks"),
    ),
    Target(
        24,
        "SIGTERM",
        (
            Part(
                "Exit code 0",
                Shown("0"),
                ("acceptance/test_process.py::test_a_signal_ends_it_cleanly",),
            ),
            Part(
                "Ten of them do no harm",
                Shown("one a millisecond until it has ended: 0"),
                ("acceptance/test_process.py::test_many_signals_are_one",),
            ),
            Part("An idle worker has ended ≤ 300 ms later", Unshown(), why="Nothing times the exit by itself."),
        ),
    ),
    Target(
        25,
        "Two hours at 1,000 events a second, all connections closed every 10 s",
        (
            Part(
                "Once its tables are full, the worker grows ≤ 0.5 MB/h",
                Said(
                    BENCHMARKS,
                    r"\| worker, resident \| [^|]* \| (-?[\d.]+) ± ([\d.]+) \|",
                    lambda found: found[0] <= 0.5,
                    "{} ± {} MB/h in the second half",
                ),
            ),
            Part(
                "The reading process ≤ 0.5 MB/h",
                Said(
                    BENCHMARKS,
                    r"\| reading process, resident \| [^|]* \| (-?[\d.]+) ± ([\d.]+) \|",
                    lambda found: found[0] <= 0.5,
                    "{} ± {} MB/h in the second half",
                ),
                why="What bounds it are the settings of its memory, which still filled; by less than its interval.",
            ),
            Part(
                "The bound that the settings give is stated, and reached",
                Unshown("growth ends, or nearly"),
                why="The settings that bound memory are named; how many megabytes they come to is not.",
            ),
            Part(
                "As many tasks at rest as before",
                Said(BENCHMARKS, r"(\d+) tasks at rest before, (\d+) after", none_more, "{} before, {} after"),
                why="Nobody has found out yet what the others are; in the runs of half an hour there were none.",
            ),
            Part(
                "No key without a TTL but the documented ones",
                Said(BENCHMARKS, r"(\d+) keys without a TTL, all of them listed", at_least(0), "{}, all listed"),
                ("docs/test_site.py::test_every_name_in_redis_is_on_its_page",),
            ),
        ),
    ),
    Target(
        26,
        "A browser that comes back",
        (
            Part(
                "10,000 random schedules: each message once, in order, or `recovered: false`",
                Shown("10,000 in each run of the tests"),
                ("gateway/test_resume.py::test_random_schedules",),
            ),
            Part("More of them", Attacked("resume", "schedules", 10_000)),
        ),
        ("resume",),
    ),
)
