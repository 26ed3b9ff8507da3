"""Runs scripts in Lua 5.4, which tells 2 from 2.0, and prints a line for each: verb, reply, floats in the reply.

A program of its own: two Luas in one process do not get along.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

os.environ["FAKEREDIS_LUA_VERSION"] = "5.4"

import fakeredis
from fakeredis.commands_mixins.scripting_mixin import ScriptingCommandsMixin

from cachebus.redis.scripts import script

LIMITS = [
    ("limits/check", ["{limit}" + strategy], 1, "take", strategy, 2, 1_000_000)
    for strategy in ("log", "windows", "bucket", "fixed")
]
LOCK = ["{lock}", "{lock}line"]
SHARD = ["{b}lease", "{b}shard", "{b}events", "{b}retries", "{b}marks", "{b}windows"]
DELAYED = ["{b}delayed", "{b}delayed-items"]
JOB = ["{b}job", "{b}running", "{b}run", "{b}ledger", "{b}journal"]
ENTRY = ["{e}entry", "{e}lease"]
CALLS: list[tuple[Any, ...]] = [
    *[call for call in LIMITS for _admitted_admitted_refused in range(3)],
    ("locks/take", LOCK, "a/1", "a", 1000, "wait", "", "wake"),
    ("locks/take", LOCK, "b/1", "b", 1000, "wait", "", "wake"),
    ("locks/look", LOCK),
    ("locks/renew", LOCK, "a/1", 1000, "wake"),
    ("locks/guarded_set", ["{value}"], 1_700_000_000_000_002, "new", 1000),
    ("locks/guarded_set", ["{value}"], 1_700_000_000_000_001, "old", 1000),
    *[
        ("bus/publish", ["{b}events", "{b}call", "{b}id"], 1000, 100, "skip", "orders", "{}", "id", 1000, 0)
        for _appended_repeated in range(2)
    ],
    ("bus/engine/take_shard", SHARD, "a/1", 1000, "", "a"),
    ("bus/engine/renew_shard", SHARD, "a/1", 1000, "a", 0),
    ("bus/engine/mark_event", ["{b}lease", "{b}marks"], "a/1", "event"),
    (
        "bus/engine/take_retries",
        ["{b}lease", "{b}retries", "{b}items", "{b}marks", "{b}shard", "{b}events", "{b}windows", "{b}window-items"],
        *("a/1", 10, 0),
    ),
    ("bus/delay", [*DELAYED, "{b}id"], 1000, 100, "wake", "later", "item", 1000),
    ("bus/engine/look_at_delayed", DELAYED, 100, 1000),
    ("bus/engine/move_delayed", [*DELAYED, "{b}events"], 100, "skip", "later", 0, "orders", "{}", 0),
    ("bus/cancel", [*DELAYED, "{b}id"], "later"),
    (
        "bus/engine/take_refreshes",
        ["{b}refreshes", "{b}refresh-items", "{b}letters", "{b}letter-ids"],
        10,
        1000,
        3,
        100,
    ),
    ("schedules/claim_job", JOB, 2**52, "a/1", 1000, "a", 1000, 0, "era"),
    ("schedules/look_at_jobs", ["{b}running", "{b}run"]),
    ("cache/atomic/count", ["{value}count"], 2**53 + 1, 1000),
    ("cache/tiers/read", ENTRY, 3000, 1, "", "", "a/1"),
    ("cache/tiers/read", ENTRY, 3000, 1, "", "", "b/1"),
]


def main() -> None:
    """Run each call."""
    floats: list[float] = []
    convert = ScriptingCommandsMixin._convert_lua_result

    def converted(self: Any, result: Any, *args: Any, **options: Any) -> Any:
        if isinstance(result, float):
            floats.append(result)
        return convert(self, result, *args, **options)

    ScriptingCommandsMixin._convert_lua_result = converted  # type: ignore[method-assign]
    redis = fakeredis.FakeRedis()
    redis.response_callbacks.clear()
    for verb, keys, *args in [*CALLS, ("(a float)", [])]:
        text = script(verb).text if keys else "return 2.0"
        floats.clear()
        reply = redis.execute_command("EVAL", f"local unpack = table.unpack\n{text}", len(keys), *keys, *args)  # type: ignore[no-untyped-call]
        sys.stdout.write(json.dumps([verb, str(reply), floats]) + "\n")


if __name__ == "__main__":
    main()
