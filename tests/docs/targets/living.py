"""Targets 27 to 35: that it is safe, whatever comes from outside, and a joy to begin with."""

from __future__ import annotations

from tests.docs.targets.evidence import NEVER_STALE, Part, Said, Shown, Target, Unshown, Wanted

SAFE = (
    Target(
        27,
        "Whatever bytes arrive",
        (
            Part(
                "100,000 events and 100,000 entries: handled, a dead letter or a miss; never a wrong type",
                Said(
                    "reference/threat-model.md",
                    r"Last whole run: ([\d,]+) inputs, (\d+)\s+decoders, (\d+) failures",
                    lambda found: found[0] / found[1] >= 100_000 and found[2] == 0,
                    "{} inputs of {} decoders, {} failures",
                ),
                (
                    "bus/test_fuzz.py::test_fuzzed_events_never_reach_a_handler_as_a_wrong_type",
                    "unit/test_fuzz.py::test_a_damaged_entry_is_a_miss_or_a_value_of_its_type",
                    "fuzz/test_targets.py::test_whatever_comes_is_decoded_or_refused",
                ),
            ),
        ),
    ),
    Target(
        28,
        "What must never be done, or stored",
        (
            Part(
                "No pickle, no `hash()` in a key, no `KEYS`, no `FLUSHDB`",
                Shown("none, in no module and no script"),
                (
                    "unit/test_repository.py::test_nothing_is_pickled",
                    "unit/test_repository.py::test_nothing_that_leaves_a_process_is_made_with_hash",
                    "unit/test_repository.py::test_no_command_walks_or_empties_a_database",
                ),
            ),
            Part(
                "No secret in a line of the log",
                Shown("masked wherever it stands"),
                (
                    "worker/test_logs.py::test_a_secret_is_masked_wherever_it_stands",
                    "worker/test_masking.py::test_a_password_outside_a_url_is_masked",
                ),
            ),
            Part(
                "A view per user has no key that is shared",
                Shown("a call without a user loads, and stores nothing"),
                ("cache/test_reads.py::test_a_call_without_identity_is_never_shared",),
            ),
            Part(
                "None of what must not be cached is stored",
                Shown("none, however nested"),
                (
                    "cache/test_never.py::test_a_refused_name_is_served_and_not_stored",
                    "cache/test_never.py::test_a_type_that_names_one_is_refused_at_decoration",
                ),
            ),
        ),
    ),
    Target(
        29,
        "Cache-aside, as people write it: in tasks, threads and forked workers",
        (
            Part(
                "0 stale",
                NEVER_STALE,
                (
                    "faults/test_matrix.py::test_nobody_reads_what_is_stale",
                    "cache/test_plain_values.py::test_threads_keep_to_the_rule",
                    "cache/test_plain_values.py::test_forked_workers_keep_to_the_rule",
                ),
            ),
            Part(
                "No write is lost without a word",
                Shown("none, in 250 random schedules of the rule"),
                (
                    "cache/test_plain_model.py::test_nothing_is_stale_and_no_own_write_is_lost",
                    "cache/test_plain_values.py::test_an_own_value_after_an_own_invalidation_is_kept",
                ),
            ),
        ),
        ("freshness",),
    ),
    Target(
        30,
        "Numbers, bytes, names and headers from outside",
        (
            Part(
                "No clock is lifted",
                Shown("a forged clock changes its own read alone"),
                ("freshness/test_outside.py::test_a_clock_that_a_caller_brings_changes_only_its_own_read",),
            ),
            Part(
                "No read asks more than a few times, no loop is without an end",
                Shown("damaged entries are loaded once, with few commands"),
                (
                    "cache/test_foreign_bytes.py::test_any_bytes_under_an_entry_are_a_miss_and_are_overwritten",
                    "cache/test_foreign_bytes.py::test_anything_under_a_lease_delays_a_read_by_a_lease_at_most",
                    "bus/test_absurd_ids.py::test_an_event_far_in_the_future_does_not_lend_its_time_to_the_next",
                ),
            ),
            Part(
                "No owner is lost twice to one event",
                Shown("a dead letter after two deaths"),
                ("bus/test_takeover.py::test_an_event_that_kills_its_process_is_a_dead_letter_after_two_deaths",),
            ),
        ),
    ),
    Target(
        31,
        "Everything is restarted, or failed over to a replica that lags",
        (
            Part(
                "From AOF or RDB, servers and applications: 0 stale by default",
                NEVER_STALE,
                (
                    "freshness/test_eras.py::test_what_was_lost_is_never_taken_for_valid",
                    "cache/test_other_servers.py::test_nothing_stale_is_read_through_a_failover",
                ),
            ),
        ),
        ("freshness",),
    ),
    Target(
        32,
        "The ways into a server",
        (
            Part(
                "Password, database 1, TLS: values, an event, commands",
                Shown("each of them, in a short suite of its own"),
                (
                    "acceptance/test_ways_in.py::test_two_processes_share_values_and_invalidations",
                    "acceptance/test_ways_in.py::test_a_worker_handles_an_event_and_stops",
                    "acceptance/test_ways_in.py::test_commands_end",
                ),
            ),
            Part(
                "A user without channels; one endpoint before many slots",
                Shown("events once; cache and bus are served"),
                (
                    "bus/test_permissions.py::test_without_channels_events_are_handled_once",
                    "cache/test_other_servers.py::test_one_endpoint_before_many_shards_serves_cache_and_bus",
                ),
            ),
            Part(
                "The whole acceptance suite on each",
                Unshown(),
                why="It runs on one node without a password. The suite of conformance runs on seven servers"
                " (`make servers`), the harnesses on nine deployments.",
            ),
            Part(
                "1,000 closes at random moments of a connect: none hangs",
                Shown("1,000, none"),
                ("redis/test_closing.py::test_a_close_at_any_moment_of_a_connect_returns",),
            ),
        ),
    ),
)
JOY = (
    Target(
        33,
        "From nothing to something",
        (
            Part("Clone to the first screen of `make run` ≤ 15 s", Unshown(), why="It is not timed by a program."),
            Part("The wheel to the first cached value ≤ 30 s", Unshown(), why="It is not timed by a program."),
            Part(
                "The tutorial, by script, ≤ 3 min",
                Unshown("it does what it says"),
                ("acceptance/test_new_application.py::test_the_tutorial_does_what_it_says",),
                "The test follows it block by block, and times nothing.",
            ),
            Part(
                "Import and first read in memory ≤ 150 ms of CPU",
                Wanted("start", "`from cachebus import Cache`, first read in memory mode", "≤ 150"),
            ),
            Part(
                "Without the driver",
                Shown("neither driver nor bus is loaded"),
                ("unit/test_face.py::test_a_cache_in_memory_loads_neither_driver_nor_bus",),
            ),
            Part("First read from Redis ≤ 320 ms", Unshown(), why="The benchmark of the start has no such row."),
        ),
    ),
    Target(
        34,
        "`make test`",
        (
            Part("5 of 5 runs in random order on Python 3.11", Unshown(), why="No run of it is kept here."),
            Part("On 3.12, on 3.13, and beside 8 busy processes", Unshown(), why="No run of it is kept here."),
            Part(
                "The workflow tests each Python that the package names",
                Shown("each, and no other"),
                ("unit/test_repository.py::test_the_workflow_runs_what_people_run",),
            ),
            Part(
                "With `CI=true` nothing is skipped",
                Unshown(),
                why="What CI lacks fails there (`tests/support/lacking.py`); no test counts what is skipped.",
            ),
        ),
    ),
    Target(
        35,
        "The pages",
        (
            Part(
                "Thirteen tasks of an operator, ≤ 4 clicks each",
                Shown("13, 4 at most; seconds are printed"),
                (
                    "monitoring/test_page_tasks.py::test_an_operator_looks",
                    "monitoring/test_page_tasks.py::test_why_a_ratio_fell",
                    "monitoring/test_page_tasks.py::test_a_letter_is_found_corrected_and_retried",
                    "monitoring/test_page_tasks.py::test_five_thousand_letters_of_two_kinds",
                    "monitoring/test_page_tasks.py::test_a_user_is_forgotten",
                ),
            ),
            Part(
                "0 faults that axe finds, ≤ 0.05 of layout shift",
                Shown("0, and at most 0.05, on each tab and on the dashboard"),
                (
                    "monitoring/test_page_looks.py::test_every_tab_is_for_everybody",
                    "tradesense/test_dashboard.py::test_everybody_can_use_it",
                ),
            ),
            Part(
                "≤ 60 KB, compressed, to the first screen of the live page",
                Shown("under 60,000 bytes"),
                ("monitoring/test_page.py::test_the_page_is_small_and_runs_nothing_foreign",),
            ),
        ),
    ),
)
