"""Changes that no test notices because nobody could: each was looked at."""

from __future__ import annotations

RULE = "cachebus/freshness/rule.py"
DISPATCH, RUNS = "cachebus/bus/engine/dispatcher.py", "cachebus/bus/engine/runs.py"
RULES, COUNTERS = "cachebus/limits/rules.py", "cachebus/limits/local_counters.py"
SEEN, LIMITER = "cachebus/limits/seen.py", "cachebus/limits/limiter.py"
SERVER = "cachebus/limits/server_backend.py"

ANY_CHANGE = "what is looked at is only whether the number is another one, or has grown"
SAME_VALUE = "of equals either one is taken"
REAL_TIME = "what begins there ended before any time of today"
NO_SUCH_CLOCK = "no clock is less than 1"

EQUAL: dict[tuple[str, str, str], str] = {
    (RULE, "Freshness.invalidated", "`clock > self._last(scope)`: Gt is GtE"): SAME_VALUE,
    (RULE, "Freshness.invalidated", "1 is 2"): ANY_CHANGE,
    (RULE, "Freshness.resync", "`last > clock`: Gt is GtE"): "true of the ledger too, so it is among the newest",
    (RULE, "Freshness.resync", "1 is 2"): ANY_CHANGE,
    (RULE, "Freshness.resync", "0 is 1"): NO_SUCH_CLOCK,
    (RULE, "Freshness.replaced", "0 is 1"): NO_SUCH_CLOCK,
    (RULE, "Freshness.queued", "1 is 2"): ANY_CHANGE,
    (RULE, "Freshness.delivered", "1 is 2"): "either is later than the moment",
    (RULE, "Freshness.latest", "`clock > newest`: Gt is GtE"): SAME_VALUE,
    (RULE, "Freshness.holds", "`self._older and (not self._older_names.isdisjoint(scopes))`: And is Or"): (
        "one look more that finds nothing: slower"
    ),
    (RULE, "Freshness.learn", "1 is 2"): ANY_CHANGE,
    (DISPATCH, "Dispatcher.work", "`now - plan.opened > OPEN_S`: Gt is GtE"): "an instant that no clock shows twice",
    (RUNS, "Started.__init__", "1000 is 1001"): "a thousandth of a second in a thousand",
    (RUNS, "window_name", "`len(name) <= LONGEST_WINDOW`: LtE is Lt"): "either name tells windows apart",
    (RUNS, "window_name", "20 is 21"): "either digest tells windows apart",
    (RULES, "RememberedRefusals.__init__", "0 is 1"): ANY_CHANGE,
    (RULES, "RememberedRefusals.drop", "1 is 2"): ANY_CHANGE,
    (RULES, "RememberedRefusals.clear", "1 is 2"): ANY_CHANGE,
    (COUNTERS, "SlidingCounter.look", "0 is 1"): "always followed by a wait that is counted",
    (COUNTERS, "SlidingCounter.look", "`cost <= free`: LtE is Lt"): "the wait for what is free is 0",
    (
        COUNTERS,
        "SlidingCounter.add",
        "`self._leaves(self._admitted[0][0], window_us) <= now_us`: LtE is Lt",
    ): "`look` leaves it out, too; it goes with the next one",
    (COUNTERS, "FixedCounter.__init__", "without `self._units = 0`"): "read in a window that has not ended, alone",
    (COUNTERS, "FixedCounter.__init__", "0 is 1"): REAL_TIME,
    (COUNTERS, "BucketCounter.__init__", "0 is 1"): "of nothing any share is nothing",
    (SEEN, "RefusedLately.__init__", "0 is 1"): REAL_TIME,
    **{
        (SERVER, f"ServerLimits.{each}", "True is False"): "both lists are made of one request"
        for each in ("decide", "_decided", "_remember", "_decide_alone")
    },
    (SERVER, "ServerLimits.__init__", "0 is 1"): REAL_TIME,
    (SERVER, "ServerLimits.reset", "0 is 1"): "the counters of one key lie in one slot",
    (SERVER, "ServerLimits._remember", "0 is 1"): "a refusal that ends in a millionth of a second",
    (
        SERVER,
        "ServerLimits._hears_resets",
        "`now_us >= self._listen_at_us`: GtE is Gt",
    ): "a millionth of a second later",
    (LIMITER, "RateLimiter.__init__", "1000 is 1001"): "a thousandth of the patience",
}
