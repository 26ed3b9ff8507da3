"""The threat model: who may try what, what happens then, the test that tries it, for docs/reference/threat-model.md."""

from __future__ import annotations

from typing import NamedTuple


class Threat(NamedTuple):
    """One line of it."""

    attempt: str
    outcome: str
    test: str
    """Below `tests/`."""


PUBLISHING = (
    Threat(
        "Somebody with access to Redis publishes on a channel that must be signed, without the key",
        "A dead letter of kind `unsigned`; no handler runs. Other channels are as open as Redis is",
        "bus/test_signatures.py::test_an_unsigned_event_is_a_dead_letter_where_signatures_are_required",
    ),
    Threat(
        "A signed event is changed, moved to another channel, or sent again later",
        "The signature covers payload, channel, id and time; it is refused",
        "bus/test_signatures.py::test_whatever_is_changed_afterwards_is_noticed",
    ),
    Threat(
        "A signing key has leaked",
        "It is replaced without losing an event: workers accept both for a while",
        "bus/test_signatures.py::test_a_key_is_changed_without_losing_an_event",
    ),
    Threat(
        "A program's Redis user may not do everything",
        "What is missing is named with the rule to add; nothing is written in part",
        "bus/test_permissions.py::test_a_command_that_is_refused_is_found_before_anything_is_written",
    ),
)
EVENTS = (
    Threat(
        "A payload is of another type, deeper, longer or no JSON at all",
        "A dead letter that names the field; its handler never sees it",
        "bus/test_fuzz.py::test_fuzzed_events_never_reach_a_handler_as_a_wrong_type",
    ),
    Threat(
        "A payload brings code",
        "Nothing that is read is ever run: no pickle, no marshal, in no module",
        "unit/test_repository.py::test_nothing_is_pickled",
    ),
    Threat(
        "A payload kills or hangs whoever handles it",
        "After two deaths it is a dead letter, and the stream resumes",
        "bus/test_takeover.py::test_an_event_that_kills_its_process_is_a_dead_letter_after_two_deaths",
    ),
    Threat(
        "A message is larger than allowed",
        "Refused, or a dead letter of which a bounded part is kept",
        "bus/test_bridge.py::test_a_plain_message_over_the_limit_is_a_dead_letter",
    ),
    Threat(
        "A record has an id from the far future, so that nothing can follow it",
        "It is handled, and so is what comes after it",
        "bus/test_absurd_ids.py::test_an_event_far_in_the_future_does_not_lend_its_time_to_the_next",
    ),
    Threat(
        "A notice between workers is forged, to have plain messages skipped",
        "None is skipped",
        "bus/test_absurd_ids.py::test_a_forged_notice_skips_nothing",
    ),
    Threat(
        "More is published than is handled",
        "The stream has a length; `publish()` is refused beyond it, and nothing is dropped",
        "bus/test_publish.py::test_a_full_stream_refuses_and_drops_nothing",
    ),
)
STOLEN = (
    Threat(
        "A dump of Redis is stolen: sessions",
        "Only SHA-256 digests of ids are there; none opens anything. User ids, addresses and session data are readable",
        "sessions/test_sessions.py::test_a_copy_of_the_store_holds_no_usable_id",
    ),
    Threat(
        "A dump of Redis is stolen: cached values and events",
        "They are readable as they are, but what must never be cached is not among them",
        "cache/test_never.py::test_a_refused_name_is_served_and_not_stored",
    ),
    Threat(
        "A piece of a session id is read in a log",
        "It does not say whose it is, nor links two sessions of one user",
        "sessions/test_sessions.py::test_a_piece_of_an_id_does_not_say_whose_it_is",
    ),
    Threat(
        "Logs are stolen",
        "Passwords are masked wherever they stand, URL or bare, in tracebacks, too",
        "worker/test_logs.py::test_a_secret_is_masked_wherever_it_stands",
    ),
    Threat(
        "A user must be forgotten",
        "What is kept of that user goes, with a receipt; another user's is untouched",
        "monitoring/test_forgetting.py::test_what_is_a_user_s_goes_and_nothing_else",
    ),
)
BYTES = (
    Threat(
        "Anything is written under an entry's name",
        "A miss, which is overwritten: never an error, never another type",
        "cache/test_foreign_bytes.py::test_any_bytes_under_an_entry_are_a_miss_and_are_overwritten",
    ),
    Threat(
        "An entry claims to be small and inflates to gigabytes",
        "It is inflated no further than the largest value stored",
        "unit/test_fuzz.py::test_a_compressed_entry_that_is_damaged_does_not_grow",
    ),
    Threat(
        "A clock is brought from outside: a header, a message, a forgery",
        "It changes its own read alone, which may ask the ledger; nobody's clock moves",
        "freshness/test_outside.py::test_a_clock_that_a_caller_brings_changes_only_its_own_read",
    ),
    Threat(
        "The ledger is damaged, or holds a clock that cannot be",
        "A new era: the cache is cold, with one warning",
        "freshness/test_outside.py::test_a_ledger_that_cannot_be_right_begins_a_new_era",
    ),
    Threat(
        "A parameter holds `:`, braces or a wildcard, to reach another key",
        "It stays one word of its key, whatever it holds",
        "unit/test_decisions.py::test_no_parameter_can_reach_another_word_of_a_key",
    ),
    Threat(
        "A view per user is called without a user",
        "It loads, and stores nothing that anybody else could get",
        "cache/test_reads.py::test_a_call_without_identity_is_never_shared",
    ),
)
BROWSERS = (
    Threat(
        "A page of another site opens a socket with the visitor's cookie",
        "403 before the handshake",
        "gateway/test_sockets.py::test_another_site_is_refused_before_the_handshake",
    ),
    Threat(
        "A browser without a session, or with one that has ended",
        "4401; open sockets are closed when their session ends",
        "gateway/test_sockets.py::test_a_session_that_ends_takes_its_sockets_along",
    ),
    Threat(
        "A user follows another user's topic",
        "Refused by name, and nothing of it is heard",
        "gateway/test_sockets.py::test_of_another_user_nothing_is_heard",
    ),
    Threat(
        "A ticket is seen in a proxy's log and used again",
        "It works once, for 30 seconds",
        "gateway/test_sockets.py::test_a_ticket_works_once",
    ),
    Threat(
        "Frames that are broken, too long, or a flood of them",
        "Answered, or closed with 1009 or 4429; nobody else notices",
        "gateway/test_sockets.py::test_a_flood_of_frames_closes",
    ),
    Threat(
        "Clients that read nothing",
        "Bounded, told, closed; they hold up nobody",
        "gateway/test_sockets.py::test_stalled_clients_hold_up_nobody",
    ),
    Threat(
        "`X-Forwarded-For` is written by the client, to have another limit",
        "Only the part that proxies of ours wrote is believed",
        "integrations/test_asgi_limits.py::test_a_spoofed_forwarded_header_changes_no_key",
    ),
    Threat(
        "A session id is planted before a login",
        "A login always makes a new id, and no id from outside becomes a session",
        "integrations/test_asgi_sessions.py::test_an_id_that_the_client_brought_never_becomes_a_session",
    ),
    Threat(
        "A route of a view per user is declared public",
        "Refused where it is declared",
        "integrations/test_http_rules.py::test_a_users_answer_is_never_public",
    ),
    Threat(
        "A condition of megabytes, or of odd bytes, in a request",
        "A plain 200, at the cost of a look at its length",
        "integrations/test_http_rules.py::test_no_bytes_are_too_odd_for_a_condition",
    ),
)
PAGE = (
    Threat(
        "Anybody who reaches the live page's port",
        "Sees nothing without signing in, on this machine and through a proxy alike",
        "monitoring/test_page_access.py::test_whoever_looks_signs_in_wherever_the_request_comes_from",
    ),
    Threat(
        "The printed link is read by somebody else afterwards",
        "Its code signs in once",
        "monitoring/test_page_access.py::test_a_link_signs_in_once",
    ),
    Threat(
        "Somebody who may look wants to act",
        "Acting needs an admin, on the page itself",
        "monitoring/test_page.py::test_only_an_admin_on_the_page_itself_acts",
    ),
    Threat(
        "A name in a table is a script or moves the cursor",
        "It is text, on the page and on a terminal; the page's policy loads nothing foreign",
        "monitoring/test_page.py::test_the_page_is_small_and_runs_nothing_foreign",
    ),
    Threat(
        "A lock or entries are taken away, and nobody says who did it",
        "It is in the audit log before it happens",
        "monitoring/test_page.py::test_a_lock_is_taken_away_from_the_holder_that_is_meant",
    ),
)
SECTIONS = {
    "Who may publish": PUBLISHING,
    "What an event may do": EVENTS,
    "What a stolen copy gives": STOLEN,
    "What bytes and words from outside may do": BYTES,
    "What a browser may do": BROWSERS,
    "Whom the live page shows what": PAGE,
}
INTRODUCTION = """
Who may try what, what happens then, and the test that tries it. Each line is tried by the test it names.

**Redis is trusted.** Whoever has the application's credentials can read what is cached and change what is read; a
signature protects the events of a channel from that, and nothing protects the rest. Give Redis a network of its own,
TLS and a user with no more rights than `cachebus doctor` asks for. Values are not encrypted. How to report something:
SECURITY.md in the repository.
"""
LIMITS = """
## Not defended against

- Whoever has the application's Redis credentials, beyond signed channels: entries, sessions' data and the ledger are
  theirs.
- Another application in the same namespace. Namespaces keep honest neighbours apart, and ACL rules dishonest ones.
- A name that says nothing: a password in a field called `x` is stored ([what is never
  cached](../explain/never-cached.md)).
- Floods that Redis itself cannot bear: limits are counted there.

## Fuzzed

Entries, events, retries, frames, ids, records of the feed, clocks, cookies, sessions, signatures, messages, recordings,
conditions and addresses are decoded from whatever Hypothesis brings, and from what is left of it when it is damaged:
`python -m tests.fuzz --inputs 2000000`. A short form is part of the tests. Last whole run: 2,000,600 inputs, 14
decoders, 0 failures. The runs before it found four: bytes that are no UTF-8 in retries and messages, and in signatures
and sessions a time that cannot be; each was an error that nobody expected, and is a refusal now.
"""


def threats_page() -> str:
    """Return the page."""
    parts = ["# Threat model", "<!-- Written by `make pages`. -->", INTRODUCTION.strip()]
    for section, threats in SECTIONS.items():
        rows = [f"| {each.attempt} | {each.outcome} | `{each.test}` |" for each in threats]
        parts += [f"## {section}", "\n".join(["| who tries what | what happens | tried by |", "|---|---|---|", *rows])]
    return "\n\n".join([*parts, LIMITS.strip()]) + "\n"
