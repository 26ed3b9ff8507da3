"""What is promised: each in one sentence, with the test that holds it, the harness that attacks it, and the limit.

The page docs/reference/promises.md is written from it (`make pages`); a test checks that each test and harness exists.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from tests.chaos.rounds import HARNESSES


class Promise(NamedTuple):
    """One of them."""

    sentence: str
    tests: tuple[str, ...]
    """Below `tests/`."""
    harness: str
    """Of `python -m tests.chaos`; '' where a test alone holds it."""
    figure: str
    limit: str


FRESH = (
    Promise(
        "No read, anywhere, returns a value older than an invalidation that had returned before it began.",
        (
            "faults/test_matrix.py::test_nobody_reads_what_is_stale",
            "freshness/test_fresh.py::test_every_kind_of_invalidation_reaches_every_process",
            "cache/test_processes.py::test_no_process_reads_what_its_journal_says_is_old",
        ),
        "freshness",
        "0 stale of 2.9 million reads in 72 cells ([fault matrix](fault-matrix.md))",
        "In other processes after journal lag, milliseconds; at most 250 ms, and 2 s for one that was itself stopped."
        " One that Redis is unavailable to answers from memory for up to `CACHE_MAX_STALENESS` (30 s by default)",
    ),
    Promise(
        "A value read from the database before an invalidation and stored after it is served to nobody who asks later.",
        (
            "freshness/test_fresh.py::test_a_value_loaded_before_an_invalidation_is_not_stored_as_new",
            "model/test_rule.py::test_without_any_one_part_exhaustion_finds_a_stale_value",
        ),
        "rule",
        "every part of the rule taken out is found in the model",
        "Who was already waiting for that load gets its value",
    ),
    Promise(
        "A read with `fresh_after` is never older than that clock, in any process.",
        (
            "freshness/test_fresh.py::test_a_read_with_a_clock_is_never_older_than_it",
            "cache/test_cut_off.py::test_fresh_after_holds_in_a_process_that_is_cut_off",
        ),
        "freshness",
        "one question to the ledger at most",
        "None",
    ),
    Promise(
        "After a restart, a flush or a failover nothing from before is served.",
        (
            "freshness/test_eras.py::test_what_was_lost_is_never_taken_for_valid",
            "freshness/test_eras.py::test_a_cold_cache_loads_each_key_once",
        ),
        "freshness",
        "one load a key",
        "The cache is cold then, unless the operator vouches for the server (`CACHE_TRUST_RESTARTS`)",
    ),
    Promise(
        "A cold key is loaded once in the whole cluster, whoever asks.",
        (
            "cache/test_processes.py::test_eight_processes_of_fifty_callers_cause_one_load",
            "cache/test_processes.py::test_a_loader_that_is_killed_is_replaced_when_its_lease_ends",
        ),
        "",
        "8 processes × 50 callers: 1 load",
        "A loader that dies is replaced after its lease, 3 s",
    ),
    Promise(
        "Credentials and what an application names are never stored, however nested or spelt.",
        (
            "cache/test_never.py::test_a_refused_name_is_served_and_not_stored",
            "cache/test_never.py::test_a_type_that_names_one_is_refused_at_decoration",
        ),
        "",
        "14 shapes of nesting",
        "It goes by names: a password in a field called `x` is not known as one",
    ),
)
ONCE = (
    Promise(
        "Each event that was accepted has its effects exactly once, in the order of its shard, whoever is killed when.",
        (
            "bus/test_crashes.py::test_every_fault_at_random_loses_nothing_and_doubles_nothing",
            "bus/test_takeover.py::test_killed_between_handler_and_commit_the_effects_are_written_once",
            "bus/test_takeover.py::test_a_commit_whose_reply_is_lost_is_written_once",
        ),
        "bus",
        "200 × `kill -9` over 25,000 events: 0 lost, 0 twice ([measurements](benchmarks.md))",
        "Effects are once; what a handler does to the world outside may happen twice. Redis must keep its writes",
    ),
    Promise(
        "Events of one key keep their order, and are once, however many shards, workers and applications there are.",
        (
            "acceptance/test_events.py::test_two_shards_keep_order_by_key",
            "bus/test_marks.py::test_what_two_shards_call_alike_is_marked_in_each",
        ),
        "fleet",
        "29,000 events, 44 × `kill -9` of four workers, 44 of four applications: 0 lost, 0 twice, 0 out of order",
        "What is retried, or replayed from the dead letters, comes later than what followed it",
    ),
    Promise(
        "A plain `PUBLISH` by any program is one event, as long as one worker listens.",
        (
            "bus/test_bridge.py::test_many_bridges_append_each_message_once",
            "bus/test_bridge.py::test_a_worker_may_come_and_go_while_another_stays",
        ),
        "bus",
        "5,000 plain messages under the same kills: 0 lost, 0 twice",
        "Redis forgets what nobody hears; order across an outage is not kept",
    ),
    Promise(
        "A delayed event comes once, also if every worker is down when it is due; a debounced import is one run.",
        (
            "bus/test_crashes.py::test_an_import_is_one_broadcast_and_delayed_events_come_once_under_kill_9",
            "bus/test_delayed.py::test_due_while_every_worker_was_down_each_is_handled_once_in_order",
        ),
        "later",
        "10,000 events, 40 kills: 1 broadcast",
        "Delays up to 30 days",
    ),
    Promise(
        "An event and the data of its transaction are both there, or neither; it is published once.",
        (
            "integrations/test_outbox.py::test_what_is_rolled_back_never_arrives",
            "integrations/test_outbox.py::test_a_relay_that_dies_before_it_deletes_leaves_one_event",
        ),
        "",
        "some 3,700 events/s of one relay",
        "For an hour the id is known: a relay that was stopped for longer may publish its last batch again",
    ),
    Promise(
        "A bad event, or one that kills its worker, becomes a dead letter with the reason, and holds up nobody.",
        (
            "bus/test_fuzz.py::test_fuzzed_events_never_reach_a_handler_as_a_wrong_type",
            "bus/test_takeover.py::test_an_event_that_kills_its_process_is_a_dead_letter_after_two_deaths",
        ),
        "bus",
        "two deaths",
        "About 10,000 letters are kept",
    ),
    Promise(
        "A stream that is full refuses, and drops nothing.",
        (
            "bus/test_publish.py::test_a_full_stream_refuses_and_drops_nothing",
            "bus/test_outages.py::test_what_is_handled_is_trimmed_and_what_is_not_never_is",
        ),
        "",
        "exact",
        "What others trim is noticed, not prevented",
    ),
    Promise(
        "A browser that comes back gets every message once, in order, or `recovered: false`.",
        (
            "gateway/test_resume.py::test_random_schedules",
            "gateway/test_sockets.py::test_what_was_missed_arrives_once_and_in_order",
        ),
        "resume",
        "10,000 random schedules in each run of the tests",
        "As far back as the feed reaches, 10,000 broadcasts",
    ),
)
ALONE = (
    Promise(
        "Each fire time of a schedule is started once, and once more only after its holder died.",
        (
            "schedules/test_one_start.py::test_each_fire_time_starts_once_whoever_is_there",
            "schedules/test_processes.py::test_killed_and_frozen_workers_start_nothing_twice",
        ),
        "schedules",
        "0 double starts",
        "A run is not its effects: make them safe to repeat",
    ),
    Promise(
        "Two holders of one lock never both write what the lock guards.",
        (
            "locks/test_locks_processes.py::test_two_holders_never_both_write",
            "locks/test_locks_processes.py::test_a_holder_that_stood_still_learns_that_it_lost_the_lock",
        ),
        "locks",
        "no sure write lost",
        "Without the fencing number one that was paused may act late ([why](../explain/what-a-redis-lock-promises.md))",
    ),
    Promise(
        "A sliding window admits no more than its limit in any window, wherever it begins.",
        (
            "limits/test_limits_exact.py::test_no_window_ever_holds_more_than_the_limit",
            "limits/test_limits_exact.py::test_processes_agree_with_the_model_on_the_servers_own_clock",
        ),
        "limits",
        "each answer equals an exact model's",
        "While Redis is unavailable each process counts for itself, or as the rule says",
    ),
    Promise(
        "A session that was ended is served by no process from the moment that returns.",
        (
            "sessions/test_sessions_races.py::test_no_request_under_way_brings_a_session_back",
            "sessions/test_sessions_races.py::test_a_revocation_is_in_force_everywhere_when_it_returns",
        ),
        "sessions",
        "0 served",
        "A failover to a replica that is behind may bring the last logouts back",
    ),
    Promise(
        "Passwords and tokens that change under load cost nobody an error or an event.",
        (
            "redis/test_credentials.py::test_tokens_that_end_cost_nobody_anything",
            "redis/test_credentials.py::test_a_password_that_is_replaced_under_load_is_no_error",
        ),
        "credentials",
        "0 errors, 0 lost",
        "The function that gives them must answer within 5 s; to pub/sub a closed connection is a gap, which is told",
    ),
)
RUNNING = (
    Promise(
        "No task dies of an outage or of a server that refuses; work resumes within seconds after it.",
        (
            "bus/test_outages.py::test_a_server_that_refuses_is_waited_for_and_no_task_dies",
            "bus/test_outages.py::test_a_restart_with_its_data_loses_and_doubles_nothing",
        ),
        "bus",
        "2 s",
        "What no time can mend (a wrong password at the start) ends the process with exit code 2",
    ),
    Promise(
        "SIGTERM ends a worker cleanly, with code 0, however often it comes.",
        (
            "acceptance/test_process.py::test_a_signal_ends_it_cleanly",
            "acceptance/test_process.py::test_many_signals_are_one",
        ),
        "",
        "idle: 300 ms",
        "A run under way has until the platform's own deadline",
    ),
    Promise(
        "An idle worker costs Redis at most four commands a second over four connections.",
        ("bus/test_idle.py::test_idle_parts_send_at_most_four_commands_a_second_over_four_connections",),
        "",
        "3.9 commands/s, 0.6 % of a core",
        "With one shard",
    ),
    Promise(
        "Every key in Redis has a TTL, or is in the table of those that have none.",
        ("docs/test_site.py::test_every_name_in_redis_is_on_its_page",),
        "",
        "looked at after each test that uses a server",
        "[Keys](keys.md)",
    ),
)
SECTIONS = {"Fresh": FRESH, "Once": ONCE, "Alone": ALONE, "Running": RUNNING}
INTRODUCTION = """
What is promised, in one sentence each. The tests are run by `make test`. The harness attacks the promise for as long
as it is given: `python -m tests.chaos --only NAME --minutes 10`, and `--break` takes out what holds the promise, to
show that the harness would notice. What is not here is not promised.
"""
A_RUN = """
What befalls them, on which deployments, and what the last long run of each found: [what was attacked](chaos.md). What
was wanted of speed and of the rest, with what is missed: [targets](targets.md).
"""


def promises_page() -> str:
    """Return the page."""
    parts = ["# Promises", "<!-- Written by `make pages`. -->", INTRODUCTION.strip()]
    for section, promises in SECTIONS.items():
        parts += [f"## {section}", "\n\n".join(_promise(promise) for promise in promises)]
    harnesses = (f"| [`{each.name}`](chaos.md#{each.name}) | {each.promise} | {each.without} |" for each in HARNESSES)
    parts += ["## The harnesses", "\n".join(["| name | attacks | `--break` takes out |", "|---|---|---|", *harnesses])]
    return "\n\n".join([*parts, A_RUN.strip()]) + "\n"


def _promise(promise: Promise) -> str:
    harness = f"`{promise.harness}`" if promise.harness else "the test"
    return (
        f"**{promise.sentence}**\n\n- Held by {_names(promise.tests)}\n- Attacked by {harness}\n"
        f"- Figure: {promise.figure}\n- Limit: {promise.limit}"
    )


def _names(tests: Iterable[str]) -> str:
    return ", ".join(f"`tests/{test}`" for test in tests)
