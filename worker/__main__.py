"""`python -m worker`: the command line. Says what may be asked; each command is loaded only when it is asked for.

Boot chain of `run`: here, then `settings`, `loading` and `build`, then `run`, which ends in a drain.
Exit codes: 0 done, 1 not so, or not done, 2 cannot start: bad usage, bad settings, refused credentials.
"""

from __future__ import annotations

import argparse
import os
import sys

from worker.heartbeat import DATA_DIR, check


def parser() -> argparse.ArgumentParser:
    """Return what may be asked."""
    top = argparse.ArgumentParser(prog="python -m worker", description="The worker, and the tools to operate it.")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", title="commands (default: run)")
    _process(commands)
    _events(commands)
    _cache(commands)
    return top


def _process(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    run = commands.add_parser("run", help="run the worker until SIGTERM or Ctrl-C")
    run.add_argument("--reload", action="store_true", help="for development: start again when a source file changes")
    alive = commands.add_parser("check", help="exit 0 if the workers on this machine live, else 1")
    alive.add_argument("--ready", action="store_true", help="exit 0 only if they also do their work")
    alive.add_argument("--data-dir", default=os.environ.get("DATA_DIR") or DATA_DIR, help="default: DATA_DIR, or .data")
    commands.add_parser("config", help="show every setting: value, where it comes from; secrets masked")
    commands.add_parser("doctor", help="examine Redis and this installation; name the fix of what is wrong")
    stats = commands.add_parser("stats", help="show the workers, what waits, what the schedules did")
    stats.add_argument("--json", action="store_true", help="as one JSON document")
    jobs = commands.add_parser("schedule", help="jobs: list, pause, resume, run now")
    verbs = jobs.add_subparsers(dest="verb", required=True, metavar="VERB")
    verbs.add_parser("list", help="every job: when, how it went, what comes next")
    for verb, effect in (
        ("pause", "let its times pass, in every worker"),
        ("resume", "no longer"),
        ("run", "run it here and now, unless it runs already; returns when it is done"),
    ):
        verbs.add_parser(verb, help=effect).add_argument("name")


def _events(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    publish = commands.add_parser("publish", help="publish an event")
    publish.add_argument("channel", help="such as trade:updates")
    publish.add_argument("event", help='JSON, such as \'{"user_id": 123, "action": "new_trade"}\'; - reads stdin')
    publish.add_argument("--key", help="ordering key: events with the same key keep their order")
    publish.add_argument("--id", help="idempotency key: a second event with the same id is dropped")
    tail = commands.add_parser("tail", help="show broadcasts, or events, as they come")
    tail.add_argument("--events", action="store_true", help="events before they are handled, not broadcasts")
    tail.add_argument("--topic", help="only topics (channels, with --events) like this, such as 'user:*'")
    tail.add_argument("--type", help="only types like this, such as 'trade.*'")
    tail.add_argument("--last", type=int, default=0, metavar="N", help="begin with the last N")
    tail.add_argument("--json", action="store_true", help="one JSON document a line")
    dead = commands.add_parser("deadletter", help="events that could not be handled: show, replay, forget")
    verbs = dead.add_subparsers(dest="verb", required=True, metavar="VERB")
    listed = verbs.add_parser("list", help="the newest first, one a line")
    listed.add_argument("--last", type=int, default=50, metavar="N", help="at most N (50)")
    verbs.add_parser("show", help="one, with payload and traceback").add_argument("id")
    for verb, effect in (("replay", "handle again"), ("purge", "forget")):
        chosen = verbs.add_parser(verb, help=effect)
        chosen.add_argument("id", nargs="*")
        chosen.add_argument("--all", action="store_true", help="all there are")


def _cache(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    invalidate = commands.add_parser("invalidate", help="make cached values unreadable; a dry run unless --yes")
    invalidate.add_argument("--key", action="append", default=[], help="exactly this key")
    invalidate.add_argument("--tag", action="append", default=[], help="everything that carries this tag")
    invalidate.add_argument("--prefix", help="every key that begins with this; ends in ':'")
    invalidate.add_argument("--everything", action="store_true", help="the whole cache")
    invalidate.add_argument("--yes", action="store_true", help="do it; without this, only say what would be")
    commands.add_parser("inspect", help="show what is cached under a key, and whether it is valid").add_argument("key")


def main(arguments: list[str] | None = None) -> int:
    """Do what was asked; returns the exit code."""
    asked = parser().parse_args(arguments or sys.argv[1:] or ["run"])
    if asked.command == "check":  # a platform asks often: nothing more is loaded
        code, lines = check(asked.data_dir, ready=asked.ready)
        sys.stdout.write("\n".join(lines) + "\n")
        return code
    from worker import commands  # noqa: PLC0415 - everything else loads the library

    return commands.perform(asked, os.environ)


if __name__ == "__main__":
    sys.exit(main())
