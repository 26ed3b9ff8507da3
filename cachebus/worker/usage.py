"""What may be asked of `cachebus`: commands, options, and what is said about what is not understood.

A mistake is one line that names what was probably meant; exit code 2.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NoReturn

SHELLS = ("bash", "zsh", "fish")
WINDOWS = ("10m", "1h", "24h")
MOST = 10_000
"""Lines that a list shows at most."""


class Parser(argparse.ArgumentParser):
    """Names the command or option that was probably meant."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, allow_abbrev=False)
        self.set_defaults(parser=self)  # the innermost one wins: it knows the options that may be meant

    def error(self, message: str) -> NoReturn:
        """Write what is wrong, and what is near it; exits with 2."""
        self.exit(2, f"{self.prog}: {self._plain(message)}\n")

    def refuse(self, unknown: list[str]) -> NoReturn:
        """Write that these arguments are not known; exits with 2."""
        first = unknown[0].partition("=")[0]
        if not first.startswith("-"):
            self.error(f"{first!r} is one argument too many")
        if first in self.options():
            self.error(f"{first} stands behind the command: {self.prog} {first}")
        self.error(f"there is no option {first!r}{self.meant(first, self.options())}")

    def commands(self) -> Mapping[str, Parser]:
        """Return the parsers of the commands below this one."""
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001 - argparse has no public name for it
                return dict(action.choices)
        return {}

    def options(self) -> list[str]:
        """Return its options, without the short forms."""
        return [option for action in self._actions for option in action.option_strings if option.startswith("--")]

    def choices(self) -> list[str]:
        """Return the words one of which stands in its place: verbs, shells."""
        own = [str(each) for action in self._actions if not action.option_strings for each in action.choices or ()]
        return list(dict.fromkeys([*self.commands(), *own]))

    def _plain(self, message: str) -> str:
        """Return a message of argparse's in words that name the fix."""
        for pattern, plain in PLAIN:
            if found := re.fullmatch(pattern, message, re.DOTALL):
                return plain(self, *found.groups())
        return message.removeprefix("argument ")

    def meant(self, written: str, known: Iterable[str]) -> str:
        """Return what was probably meant, as the end of a sentence."""
        from difflib import get_close_matches  # noqa: PLC0415 - only for who made a mistake

        near = get_close_matches(written, list(known), n=1)
        return f"; did you mean {near[0]}?" if near else f"; {self.prog} --help lists what there is"


PLAIN: tuple[tuple[str, Callable[..., str]], ...] = (
    (
        r"argument (?:COMMAND|VERB): invalid choice: '(.*?)' \(choose from .*\)",
        lambda parser, word: f"there is no command {word!r}{parser.meant(word, parser.commands())}",
    ),
    (
        r"argument (\S+): invalid choice: '(.*?)' \(choose from (.*)\)",
        lambda _, name, word, known: f"{name}: {word!r} is not one of {known.replace(chr(39), '')}",
    ),
    (
        r"argument (\S+): invalid \w+ value: '(.*)'",
        lambda _, name, word: f"{name}: {word!r} is not a whole number",
    ),
    (
        r"argument (\S+): expected (?:one|at least one) argument",
        lambda _, name: f"{name}: its value is missing; one that begins with '-' is written {name}=-…",
    ),
    (
        r"argument (\S+): ignored explicit argument '(.*)'",
        lambda _, name, word: f"{name} takes no value; leave ={word} out",
    ),
    (
        r"the following arguments are required: VERB",
        lambda parser: f"say what to do: {', '.join(parser.commands())}",
    ),
    (
        r"the following arguments are required: (.*)",
        lambda parser, names: f"{names} is missing; {parser.prog} --help says what it is",
    ),
)
"""What argparse says -> what this says."""


Subparsers = argparse._SubParsersAction  # noqa: SLF001 - argparse has no public name for it


def parser(prog: str = "cachebus") -> Parser:
    """Return what may be asked."""
    top = Parser(prog=prog, description="A cache, an event bus and their worker on Redis or Valkey.")
    top.add_argument("--version", action="store_true", help="print the version")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    _processes(commands)
    _state(commands)
    _listings(commands)
    _advice(commands)
    _schedule(commands)
    _events(commands)
    _letters(commands)
    _cache(commands)
    return top


def _application(command: Parser) -> None:
    named = command.add_argument_group("the application, found from the current folder; default: the variables")
    named.add_argument("--cache", metavar="MODULE:NAME", help="CACHE: the cache of its views, such as shop.views:cache")
    named.add_argument("--handlers", metavar="MODULES", help="HANDLERS: where its handlers are, comma-separated")
    named.add_argument("--schedules", metavar="MODULES", help="SCHEDULES: where its jobs are, comma-separated")
    named.add_argument("--outbox", metavar="MODULE:NAME", help="OUTBOX: the outbox whose events are published")


def _json(command: Parser) -> None:
    command.add_argument("--json", action="store_true", help="as one JSON document")


def _last(command: Parser, default: int, what: str) -> None:
    command.add_argument("--last", type=_count, default=default, metavar="N", help=f"{what} ({default})")


def _count(text: str) -> int:
    if text.isascii() and text.isdecimal() and int(text) <= MOST:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 to {MOST:,}")


def _entries(text: str) -> int:
    if text.isascii() and text.isdecimal():
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 0 or more")


def _processes(commands: Subparsers[Parser]) -> None:
    _application(commands.add_parser("worker", help="run the worker until SIGTERM or Ctrl-C"))
    commands.add_parser("gateway", help="run the gateway, which passes broadcasts on to browsers")
    dev = commands.add_parser("dev", help="run server, worker, gateway and your application, restarted on a change")
    _application(dev)
    dev.add_argument("--port", type=int, help="the gateway's; default: PORT, or 8080; the worker's is the next one")
    dev.add_argument("program", nargs="*", metavar="PROGRAM", help="the application's own command, after --")
    new = commands.add_parser("new", help="write a small application that runs at once")
    new.add_argument("name", metavar="NAME", help="its folder, such as shop")
    new.set_defaults(framework="")
    web = new.add_mutually_exclusive_group()
    for framework, effect in (
        ("fastapi", "with a web application that shows the cached view"),
        ("flask", "with a Flask application"),
        ("django", "as a Django project"),
    ):
        web.add_argument(f"--{framework}", action="store_const", const=framework, dest="framework", help=effect)
    completion = commands.add_parser("completion", help="print what makes a shell complete commands and options")
    completion.add_argument("shell", metavar="SHELL", choices=SHELLS, help=", ".join(SHELLS))


def _state(commands: Subparsers[Parser]) -> None:
    alive = commands.add_parser("check", help="exit 0 if the workers on this machine live, else 1")
    alive.add_argument("--ready", action="store_true", help="exit 0 only if they also do their work")
    alive.add_argument("--data-dir", help="default: DATA_DIR, or .data")
    _json(alive)
    for name, what in (
        ("config", "show every setting: value, where it comes from; secrets masked"),
        ("doctor", "examine Redis, this installation and the application; name fixes"),
        ("stats", "show the workers, what waits, what the schedules did"),
    ):
        command = commands.add_parser(name, help=what)
        _application(command)
        _json(command)
    metrics = commands.add_parser("metrics", help="what /metrics has: a table, a Grafana dashboard, alert rules")
    verbs = metrics.add_subparsers(dest="verb", required=True, metavar="VERB")
    _json(verbs.add_parser("table", help="every metric: name, kind, labels, meaning"))
    verbs.add_parser("dashboard", help="a dashboard for Grafana to import, JSON")
    verbs.add_parser("alerts", help="a rule file for Prometheus")
    link = commands.add_parser("page-link", help="print a link that signs you in to the live page, once")
    link.add_argument("url", nargs="?", default="http://localhost:8080", metavar="URL", help="where the page is")
    link.add_argument("--name", help="who you are, for the audit log; default: user@machine")


def _listings(commands: Subparsers[Parser]) -> None:
    views = commands.add_parser("views", help="list the views: reads, hit rate, loads and what they cost")
    views.add_argument("--window", choices=WINDOWS, default="1h", help="what is added up (1h)")
    _json(views)
    top = commands.add_parser("top", help="list the calls that are read most")
    top.add_argument("view", nargs="?", metavar="VIEW", help="only of this view, such as 'orders:{customer}:total'")
    _last(top, 20, "at most N")
    _json(top)
    predict = commands.add_parser("predict", help="list what prediction has learnt, what it saved and cost")
    predict.add_argument("--reset", metavar="VIEW", help="forget what was learnt of this view instead")
    _last(predict, 40, "at most N")
    _json(predict)
    _json(commands.add_parser("locks", help="list the locks that are held: by whom, how many wait"))
    sockets = commands.add_parser(
        "sockets", help="list the gateways and the browsers each has: user, topics, what waits"
    )
    sockets.add_argument("--user", default="", help="only the sockets of this user")
    _json(sockets)


def _advice(commands: Subparsers[Parser]) -> None:
    analyze = commands.add_parser("analyze", help="record the traffic for a time, and say what to set differently")
    analyze.add_argument("--for", dest="duration", metavar="TIME", help="how long, such as 1h; default: 10m")
    analyze.add_argument("--json", metavar="FILE", help="write the report to a file; - writes it instead of tables")
    analyze.add_argument("--keep", metavar="FILE", help="write the recording to a file, for replay and --from")
    analyze.add_argument("--from", dest="source", metavar="FILE", help="record nothing: analyze what --keep wrote")
    replay = commands.add_parser("replay", help="say what a recording would have been with other TTLs or memory")
    replay.add_argument("recording", metavar="RECORDING", help="a file that analyze --keep wrote")
    ttl = "such as 'orders:{customer}:total=10m'; may be repeated"
    replay.add_argument("--ttl", action="append", default=[], metavar="VIEW=TTL", help=ttl)
    replay.add_argument("--memory", type=_entries, metavar="N", help="CACHE_MAX_MEMORY_ENTRIES")
    replay.add_argument("--predict", action="store_true", help="load ahead what the same user is likely to read next")
    _json(replay)


def _schedule(commands: Subparsers[Parser]) -> None:
    jobs = commands.add_parser("schedule", help="jobs: list, pause, resume, run now")
    verbs = jobs.add_subparsers(dest="verb", required=True, metavar="VERB")
    listed = verbs.add_parser("list", help="every job: when, how it went, what comes next")
    _application(listed)
    _json(listed)
    for verb, effect in (
        ("pause", "skip its fire times, in every worker"),
        ("resume", "end the pause"),
        ("run", "run it here and now, unless it runs already; returns when it is done"),
    ):
        one = verbs.add_parser(verb, help=effect)
        _application(one)
        one.add_argument("name", metavar="NAME", help="as `schedule list` shows it")


def _events(commands: Subparsers[Parser]) -> None:
    publish = commands.add_parser("publish", help="publish an event")
    _application(publish)
    publish.add_argument("channel", metavar="CHANNEL", help="such as orders")
    example = 'JSON, such as \'{"order_id": 123, "status": "paid"}\'; - reads stdin'
    publish.add_argument("event", metavar="JSON", help=example)
    publish.add_argument("--key", help="ordering key: events with the same key keep their order")
    publish.add_argument("--id", help="idempotency key: a second event with the same id is dropped")
    publish.add_argument("--delay", metavar="TIME", help="publish it that much later, such as 10m; see cancel")
    publish.add_argument("--force", action="store_true", help="also where no handler is found, or it cannot read it")
    cancel = commands.add_parser("cancel", help="take back an event that is to be published later")
    cancel.add_argument("id", metavar="ID", help="as publish printed it")
    triggers = commands.add_parser("pg-triggers", help="write the SQL that has PostgreSQL tell of changed rows")
    triggers.add_argument(
        "table", metavar="TABLE", help="whose rows other programs change, such as orders or shop.orders"
    )
    triggers.add_argument(
        "--tag", action="append", default=[], help="what a changed row invalidates, such as 'user:{user_id}:orders'"
    )
    triggers.add_argument("--into", default="cachebus_outbox", metavar="TABLE", help="the outbox (cachebus_outbox)")
    triggers.add_argument("--drop", action="store_true", help="the SQL that removes them")
    tail = commands.add_parser("tail", help="show broadcasts, or events, as they come")
    tail.add_argument("--events", action="store_true", help="events before they are handled, not broadcasts")
    tail.add_argument("--topic", help="only topics (channels, with --events) like this, such as 'user:*'")
    tail.add_argument("--type", help="only types like this, such as 'order.*'")
    _last(tail, 0, "begin with the last N")
    tail.add_argument("--json", action="store_true", help="one JSON document a line")
    events = commands.add_parser("events", help="one event: show what became of it")
    verbs = events.add_subparsers(dest="verb", required=True, metavar="VERB")
    shown = verbs.add_parser("show", help="waiting, handled, tried again, dead-lettered")
    shown.add_argument("id", metavar="ID", help="the publisher's id, or the position in the stream")
    _json(shown)


def _letters(commands: Subparsers[Parser]) -> None:
    dead = commands.add_parser("letters", help="events that could not be handled: list, groups, show, replay, purge")
    verbs = dead.add_subparsers(dest="verb", required=True, metavar="VERB")
    listed = verbs.add_parser("list", help="the newest first")
    _last(listed, 50, "at most N")
    _json(listed)
    _json(verbs.add_parser("groups", help="by handler and reason, the largest group first"))
    shown = verbs.add_parser("show", help="one, with payload and traceback")
    shown.add_argument("id", metavar="ID", help="as `letters list` shows it")
    _json(shown)
    for verb, effect in (("replay", "handle again, and say what became of it"), ("purge", "delete")):
        chosen = verbs.add_parser(verb, help=effect)
        chosen.add_argument("id", nargs="*", metavar="ID")
        chosen.add_argument("--all", action="store_true", help="all there are")


def _cache(commands: Subparsers[Parser]) -> None:
    invalidate = commands.add_parser("invalidate", help="make cached values unreadable; a dry run unless --yes")
    _application(invalidate)
    invalidate.add_argument("--key", action="append", default=[], help="exactly this key")
    invalidate.add_argument("--tag", action="append", default=[], help="everything that carries this tag")
    invalidate.add_argument("--prefix", help="every key that begins with this; ends in ':'")
    invalidate.add_argument("--everything", action="store_true", help="the whole cache")
    invalidate.add_argument("--yes", action="store_true", help="do it; without this, only say what would be done")
    _json(invalidate)
    inspect = commands.add_parser("inspect", help="show what is cached under a key, and whether it is valid")
    _application(inspect)
    inspect.add_argument("key", metavar="KEY")
    _json(inspect)
    forget = commands.add_parser("forget", help="delete what is kept of one user; a dry run unless --yes")
    _application(forget)
    forget.add_argument("user", metavar="USER", help="the user's id, such as 7")
    forget.add_argument("--yes", action="store_true", help="do it; without this, only say what there is")
    _json(forget)
    unlock = commands.add_parser("unlock", help="take a lock away from its holder; a dry run unless --yes")
    unlock.add_argument("lock", metavar="NAME", help="its name, such as import:user:123")
    unlock.add_argument("--yes", action="store_true", help="do it; without this, only say who holds it")
    unlock.add_argument("--name", help="who you are, for the audit log; default: user@machine")
