"""The command line as somebody uses it who does not know the code: what it answers, and what it says about mistakes."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from cachebus import Bus, Cache, CacheSettings, Client, Locks, RateLimiter, SessionStore
from cachebus.cache.foresight.prediction.contexts import Context
from cachebus.cache.foresight.prediction.decision import Totals
from cachebus.cache.foresight.prediction.follows import LoadedAhead, add_follows, days_of, note_reasons
from cachebus.cache.upkeep.popularity import Popularity
from cachebus.cache.upkeep.reporter import Observed, Reporter
from cachebus.monitoring.audit import Audit
from cachebus.monitoring.timeline import Timeline
from cachebus.testing.server import PrivateServer
from cachebus.worker.cli import main
from cachebus.worker.commands.completion import script
from tests.support.lacking import program
from tests.support.worker_program import APPS, ROOT, WorkerProcess, until

VIEW = "orders:{customer}:total"
GONE = "gone:{user_id}"
"""A view that prediction has learnt something of, and shall forget."""
UNREADABLE = "evil\x1b[2J[red]name"
"""A lock of somebody who wants to clear the screen of whoever lists the locks."""

MISTAKES = [
    # commands and verbs
    (["wroker"], "there is no command 'wroker'; did you mean worker?"),
    (["deadletters"], "there is no command 'deadletters'; did you mean letters?"),
    (["lock"], "did you mean locks?"),
    (["socket"], "did you mean sockets?"),
    (["view"], "did you mean views?"),
    (["event", "show", "1-0"], "did you mean events?"),
    (["job", "list"], "there is no command 'job'; cachebus --help lists what there is"),
    (["frobnicate"], "there is no command 'frobnicate'; cachebus --help lists what there is"),
    (["sched", "list"], "did you mean schedule?"),
    (["forgot", "7"], "did you mean forget?"),
    (["compeltion", "bash"], "did you mean completion?"),
    (["letters"], "say what to do: list, groups, show, replay, purge"),
    (["letters", "reply"], "there is no command 'reply'; did you mean replay?"),
    (["letters", "group"], "did you mean groups?"),
    (["schedule"], "say what to do: list, pause, resume, run"),
    (["schedule", "stop"], "there is no command 'stop'"),
    (["events", "list"], "there is no command 'list'; cachebus events --help lists what there is"),
    (["events"], "say what to do: show"),
    # options
    (["--vresion"], "there is no option '--vresion'; did you mean --version?"),
    (["--json", "views"], "--json stands behind the command: cachebus views --json"),
    (["views", "--jsn"], "there is no option '--jsn'; did you mean --json?"),
    (["views", "--windows", "1h"], "did you mean --window?"),
    (["worker", "--handler=shop"], "there is no option '--handler'; did you mean --handlers?"),
    (["tail", "--event"], "there is no option '--event'; did you mean --events?"),
    (["letters", "list", "--lst", "3"], "there is no option '--lst'; did you mean --last?"),
    (["publish", "orders", "{}", "--forced"], "did you mean --force?"),
    (["invalidate", "--tags", "user:7"], "did you mean --tag?"),
    (["forget", "7", "--yess"], "did you mean --yes?"),
    (["locks", "--follow"], "there is no option '--follow'; cachebus locks --help lists what there is"),
    # values
    (["views", "--window", "1d"], "--window: '1d' is not one of 10m, 1h, 24h"),
    (["completion", "tcsh"], "SHELL: 'tcsh' is not one of bash, zsh, fish"),
    (["tail", "--last", "x"], "--last: 'x' is not a whole number from 0 to 10,000"),
    (["replay", "traffic.rec", "--memory", "-1"], "--memory: '-1' is not a whole number of 0 or more"),
    (["replay", "nowhere.rec", "--memory", "50000"], "nowhere.rec"),
    (["top", "--last", "-3"], "--last: '-3' is not a whole number"),
    (["letters", "list", "--last"], "--last: its value is missing"),
    (["dev", "--port", "web"], "--port: 'web' is not a whole number"),
    (["locks", "--json=yes"], "--json takes no value; leave =yes out"),
    (["page-link", "localhost:8080"], "'localhost:8080' is not the page's address; write it like https://"),
    (["new", "Shop!"], "'Shop!' is not a good name"),
    (["new", f"{__file__}/shop"], "shop cannot be made: Not a directory; choose another place"),
    (["publish", "orders", "{}", "--delay", "-5s"], "one that begins with '-' is written --delay=-…"),
    (["publish", "orders"], "JSON is missing; cachebus publish --help says what it is"),
    (["forget"], "USER is missing"),
    (["forget", " "], "USER is empty; name the id of one user"),
    (["config", "all"], "'all' is one argument too many"),
    # what the application has
    (["publish", "ordres", "{}"], "nobody handles 'ordres'; did you mean orders? --force publishes it all the same"),
    (
        ["publish", "orders", '{"customer": "seven"}'],
        "the event does not fit shop.orders.placed.order_placed: Expected `int`",
    ),
    (["publish", "orders", "{"], "these bytes are not JSON"),
    (["publish", "ws:user:7", "{}"], "is kept for broadcasts"),
    (["schedule", "run", "shop.jobs.counting.yearli"], "did you mean shop.jobs.counting.yearly?"),
    (["top", "order:{customer}:total"], f"nobody declares a view 'order:{{customer}}:total'; did you mean '{VIEW}'?"),
    (["letters", "purge"], "name letters by id, or say --all"),
    (["invalidate"], "nothing is named; add --key, --tag, --prefix or --everything"),
    (["invalidate", "--prefix", "orders"], "must end in ':'"),
    (["inspect", "x", "--cache", "shop.view:cache"], "CACHE: there is no module 'shop.view'"),
    (["analyze", "--for", "0"], "for: '0' is not a duration"),
    (["analyze", "--for", "8d"], "for: '8d' must be from 1s to 6h"),
    (["analyze", "--json", "/nowhere/report.json"], "there is no folder /nowhere; make it first"),
    (["analyze", "--from", "x.rec", "--for", "10m"], "leave --for and --keep out"),
    (["replay"], "RECORDING is missing"),
    (["replay", "/nowhere.rec"], "/nowhere.rec: No such file or directory; `cachebus analyze --keep FILE` writes"),
]


def named(each: object) -> str:
    """Name a test by the command."""
    return " ".join(each) if isinstance(each, list) else ""


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A shop at work: a handled order, one that was refused, a lock, a gateway, sessions, counters, reads."""
    folder = tmp_path_factory.mktemp("shop")
    with PrivateServer.start("appendonly no") as server, pytest.MonkeyPatch.context() as patch:
        environment = {
            "REDIS_URL": server.url,
            "DATA_DIR": str(folder / "data"),
            "HANDLERS": "shop.orders",
            "SCHEDULES": "shop.jobs",
            "CACHE": "shop.views:cache",
            "SHOP_FOLDER": str(folder),
            "NO_COLOR": "1",
        }
        for name, text in environment.items():
            patch.setenv(name, text)
        patch.setattr(sys, "path", [str(APPS), *sys.path])
        for name in [each for each in sys.modules if each.partition(".")[0] == "shop"]:
            patch.delitem(sys.modules, name)  # of other tests: its cache has another server
        with WorkerProcess(environment) as worker:
            worker.said("worker started")
            asyncio.run(_use(server.url))
            until(lambda: server.ask("XLEN", "{cachebus}:deadletters"), "the dead letter")
            until(lambda: not server.ask("ZCARD", "{cachebus}:refreshes"), "the refresh")
            assert worker.stop() == 0
        yield environment


async def _use(url: str) -> None:
    from shop.views import total  # noqa: PLC0415 - found once the deployment has said where

    async with Client(url) as client:
        await Bus(client).publish("orders", {"customer": 7, "number": 1}, key="user:7", id="order-1")
        await Bus(client).publish("orders", {"customer": 7, "number": 2, "action": "refused"}, id="order-2")
        locks = Locks(client, owner="web-1:4711")
        for name in ("import:user:7", UNREADABLE):
            await locks.lock(name, timeout="10m", renew=False).acquire()
        await RateLimiter(client, patience="5s").check("login:7", limit=5, window="10m")
        await SessionStore(client).create(7)
        await SessionStore(client).create("8")
        counted = Popularity(client)
        counted.note(VIEW, partial(total.encode_arguments, 7), 30)
        counted.note(VIEW, partial(total.encode_arguments, 8), 3)
        await counted.flush()
        learnt = {
            Context("!", VIEW, "own", "1m"): Totals(300, 240, 12, 9, 4_500, 6_000),
            Context("cart:{user_id}", GONE, "0", "1h"): Totals(3, 2),
        }
        await add_follows(client, days_of(client)[0], learnt)
        async with Cache(settings=CacheSettings(url=url)) as cache:
            entry = cache.names.entry("orders:7:total", total.fingerprint)
            why = LoadedAhead(Context("!", VIEW, "own", "1m").name, 0.8, 300, 300.0, used=True)
            await note_reasons(client, [(entry, why, 600_000)])


async def _gateway_reports(url: str) -> None:
    """Report as a gateway does every ten seconds: one that has been silent for half a minute is not listed."""
    async with Cache(settings=CacheSettings(url=url)) as cache:
        observed = Observed()
        observed.gauges["sockets"] = lambda: 3.0
        reporter = Reporter(cache.client, cache.stats, observed, ttls_ms=lambda: {VIEW: 300_000}, name="web-1.17")
        await reporter.flush()


@pytest.fixture
def gateway(deployment: dict[str, str]) -> None:
    """Have a gateway report just now."""
    asyncio.run(_gateway_reports(deployment["REDIS_URL"]))


def test_there_are_enough_mistakes() -> None:
    """As many as the specification asks for."""
    assert len(MISTAKES) >= 48


@pytest.mark.parametrize(("arguments", "said"), MISTAKES, ids=named)
def test_a_mistake_is_one_line_that_names_the_fix(
    arguments: list[str], said: str, deployment: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2; one line, of the command it is about; nothing on standard output, no traceback."""
    try:
        code = main(arguments)
    except SystemExit as ended:
        code = ended.code
    shown = capsys.readouterr()
    assert (code, shown.out) == (2, "")
    (line,) = shown.err.splitlines()
    assert line.startswith("cachebus")
    assert said in line


ANSWERS = [
    (["views"], r"(?m)^VIEW +READS +HIT %.*\norders:\{customer\}:total +\d"),
    (["views", "--window", "24h"], r"orders:\{customer\}:total"),
    (["top"], r"(?m)^orders:\{customer\}:total +7 +30\n.*total +8 +3$"),
    (["top", VIEW, "--last", "1"], r"(?m)\AVIEW +ARGUMENTS +READS\n.*7 +30\n\Z"),
    (
        ["predict"],
        r"(?m)^CONTEXT .*\nonce the same user's data changed, \S+ \(last read within 1m\) is read again +300 +80 +live",
    ),
    (["predict"], r"live +12 +9 +4\.5 +6\n"),
    (["predict", "--reset", GONE], r"\Agone:\{user_id\}: 1 context forgotten"),
    (["locks"], r"import:user:7 +web-1:4711 +\d+ +\d+ (s|min) +\d+ min +0"),
    (["sockets"], r"(?m)^web-1\.17 +3 +\d+ s ago$"),
    (["stats"], r"dead letters   1\n"),
    (["schedule", "list"], r"(?m)^JOB +WHEN +STATE\n(.*\n)*shop\.jobs\.counting\.yearly +cron 0 0 1 1 \* UTC +next in"),
    (
        ["events", "show", "order-1"],
        r"state      handled\n(.*\n)*effect     shop\.orders\.placed\.order_placed invalidated t:customer:7",
    ),
    (
        ["events", "show", "order-2"],
        r"state      handled, 1 dead-lettered\n(.*\n)*letter     \d+-\d+; cachebus letters show",
    ),
    (["letters", "list"], r"failed +orders +shop\.orders\.placed\.order_placed +ValueError"),
    (["letters", "groups"], r"(?m)^1 +failed +orders +shop\S+ +.*order N cannot be taken"),
    (["tail", "--help"], r"--topic"),
    (["config"], r"(?m)^REDIS_URL +redis://.* environment +Redis or Valkey"),
    (["inspect", "orders:7:total"], r"value       0\n"),
    (["inspect", "orders:7:total"], r"loaded ahead: once .* is read again: 80 % of 300 within 5 min; used\n"),
    (["invalidate", "--tag", "customer:7"], r"would invalidate tag 'customer:7': 1 stored entry\nnothing was done"),
    (["forget", "7"], r"1  sessions\n(.*\n)* +1  rate limit counters\n(.*\n)* +1  handled events\n"),
    (["unlock", "import:user:7"], r"held by web-1:4711 .*\nnothing was done"),
    (["page-link", "https://cache.example.com"], r"\Ahttps://cache\.example\.com/#enter=\S+\n\Z"),
    (["completion", "bash"], r"complete -o default -F _cachebus cachebus"),
    (["publish", "orders", "{}", "--force"], r"\A[0-9a-f]{24}\n\Z"),
]
LISTS = [
    ["views"],
    ["top"],
    ["predict"],
    ["locks"],
    ["sockets"],
    ["schedule", "list"],
    ["events", "show", "order-1"],
    ["letters", "list"],
    ["letters", "groups"],
    ["config"],
    ["inspect", "orders:7:total"],
]


@pytest.mark.usefixtures("gateway")
@pytest.mark.parametrize(("arguments", "answer"), ANSWERS, ids=named)
def test_a_command_answers_in_words(
    arguments: list[str], answer: str, deployment: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 0, columns with names, nothing on standard error."""
    try:
        code = main(arguments)
    except SystemExit as ended:  # --help
        code = ended.code
    shown = capsys.readouterr()
    assert (code, shown.err) == (0, "")
    assert re.search(answer, shown.out), shown.out


@pytest.mark.usefixtures("gateway")
@pytest.mark.parametrize("arguments", LISTS, ids=" ".join)
def test_what_lists_also_lists_for_programs(
    arguments: list[str], deployment: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    """`--json` is one document: a list of objects, whose fields have names."""
    assert main([*arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert isinstance(found, list)
    assert found
    assert all(isinstance(each, dict) for each in found)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["letters", "show", "1-0"], "there is no dead letter 1-0"),
        (["letters", "show", "[red]\x1b[2J"], "there is no dead letter [red]\\x1b[2J"),
        (["letters", "replay", "1-0"], "0 of 1 letter put back"),
        (["events", "show", "nobody"], "there is no event nobody: neither an id nor a position"),
        (["inspect", "orders:99:total"], "orders:99:total: 0 stored copies"),
        (["predict", "--reset", "nothing:{user_id}"], "nothing:{user_id}: 0 contexts forgotten"),
        (["unlock", "nothing"], "nobody holds it"),
    ],
)
def test_what_is_not_there_is_said(
    arguments: list[str], said: str, deployment: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    """An id that is unknown or gone: one line and exit code 1."""
    assert main(arguments) == 1
    (line,) = capsys.readouterr().out.splitlines()
    assert said in line


def test_doctor_names_a_database_that_nothing_asks(
    deployment: dict[str, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without READY_CHECK a worker is ready while its database is down."""
    main(["doctor"])
    assert "READY_CHECK" not in capsys.readouterr().out
    monkeypatch.setenv("DATABASE_URL", "postgresql://localhost/shop")
    main(["doctor"])
    assert "fix: READY_CHECK=package.module:name" in capsys.readouterr().out


def test_a_delayed_event_is_shown_with_its_time(deployment: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    """It waits, it is not unknown; once it is taken back it is."""
    assert main(["publish", "orders", '{"n": 1}', "--force", "--delay", "60s", "--id", "DD"]) == 0
    capsys.readouterr()
    assert main(["events", "show", "DD"]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"state      delayed, published at 20\d\d-.*\n(.*\n)*payload    \{\"n\": 1\}", shown), shown
    assert main(["events", "show", "DD", "--json"]) == 0
    (event,) = json.loads(capsys.readouterr().out)
    assert (event["state"], event["due_ms"] > 0, event["channel"]) == ("delayed", True, "orders")
    assert main(["cancel", "DD"]) == 0
    assert main(["events", "show", "DD"]) == 1


def test_names_of_others_move_no_cursor(deployment: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    """Control characters are escaped, markup is no style: in a pipe and on a terminal."""
    assert main(["locks"]) == 0
    assert "evil\\x1b[2J[red]name" in capsys.readouterr().out


def test_a_terminal_gets_a_table_of_its_width(deployment: dict[str, str]) -> None:
    """With 80 columns no line is longer: what does not fit is folded, never cut. Without colours where NO_COLOR is."""
    shown = on_a_terminal("letters list", deployment)
    lines = re.sub(r"\r|\x1b\[\d*m", "", shown).splitlines()
    assert max(map(len, lines)) <= 80, lines
    assert "LETTER" in lines[0]
    assert "cannotbetaken" in re.sub(r"\s", "", "".join(line[66:] for line in lines))
    assert "\x1b[3" not in shown


@pytest.mark.parametrize(
    ("arguments", "doing"),
    [
        ("forget 7", "looking for user 7"),
        ("invalidate --everything", "counting"),
        ("letters purge 1-0", "letters purge"),
        ("letters replay 1-0", "watching what becomes of them"),
        ("letters groups", "letters groups"),
    ],
)
def test_a_terminal_sees_how_far_a_long_walk_is(arguments: str, doing: str, deployment: dict[str, str]) -> None:
    """A bar with what is done meanwhile, gone in the end; in a pipe (the other tests) there is none."""
    shown = on_a_terminal(arguments, deployment)
    assert re.search(rf"{doing} .*[━╸╺].* \d+/(\d+|\?)", shown), shown


def test_a_terminal_sees_how_far_a_job_is(deployment: dict[str, str]) -> None:
    """What it says while it is run by hand; what it said last is in its state."""
    shown = on_a_terminal("schedule run shop.jobs.counting.slowly", deployment)
    assert "counting.slowly  half" in shown
    assert re.search(r"counting\.slowly  cron .* done .*, whole, next in", shown.splitlines()[-1]), shown


def on_a_terminal(arguments: str, deployment: dict[str, str]) -> str:
    """Return all that a terminal of 80 columns is sent."""
    command = f"{sys.executable} -m cachebus.worker {arguments}"
    environment = {**os.environ, **deployment, "PYTHONPATH": f"{ROOT}:{APPS}", "COLUMNS": "80", "TERM": "xterm"}
    terminal = ["script", "-qc", command, "/dev/null"]
    done = subprocess.run(terminal, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    return done.stdout


def test_a_user_is_forgotten_with_a_receipt(deployment: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    """Everything that was counted before is gone after, another user's is not; who did it is in the audit log."""
    assert main(["publish", "orders", '{"user_id": 8, "customer": 1}', "--force"]) == 0
    assert main(["forget", "8", "--yes", "--json"]) == 0
    receipt = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (receipt["done"], receipt["sessions"]) == (True, 1)
    assert receipt["left"] == {"events that wait for their handler, or are the last that was handled": 1}
    assert main(["forget", "8", "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert (again["sessions"], again["limits"]) == (0, 0)
    assert main(["forget", "7", "--json"]) == 0
    other = json.loads(capsys.readouterr().out)
    assert (other["sessions"], other["limits"], other["events"]) == (1, 1, 1)

    async def noted() -> tuple[list[tuple[str, str]], set[tuple[str, str]]]:
        async with Client(deployment["REDIS_URL"]) as client:
            causes = [cause for step in await Timeline(client).look() for cause in step.causes]
            actions = [(each.action, each.target) for each in await Audit(client).newest()]
            return actions, {(cause.kind, cause.what) for cause in causes}

    actions, causes = asyncio.run(noted())
    assert ("forget", '{"user":"8"}') in actions
    assert ("command", "forget") in causes


COMPLETING = {
    "bash": ("--norc", "", 'COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _cachebus; printf "%s\\n" "${COMPREPLY[@]}"'),
    "zsh": ("-f", "compdef() {}; compadd() { shift; print -l -- $@ }", "words=($@); CURRENT=$#; _cachebus"),
    "fish": ("--no-config", "", 'complete -C "$argv[2..]"'),
}
"""How a shell is started, and has it say what would come next; zsh says all there is, and its editor chooses."""


@pytest.mark.parametrize("shell", COMPLETING)
def test_a_shell_completes(shell: str, tmp_path: Path) -> None:
    """Commands, then the verbs and options of the one that is there, whatever stands between them."""
    path = program(shell)
    bare, before, after = COMPLETING[shell]
    text = f"{before}\n{script(shell)}\n{after}"

    def complete(*words: str) -> set[str]:
        command = [path, bare, "-c", text, shell, *words]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
        return {each for each in done.stdout.split() if each.startswith(words[-1])}

    assert complete("cachebus", "le") == {"letters"}
    assert complete("cachebus", "letters", "") >= {"list", "groups", "show", "replay", "purge"}
    assert complete("cachebus", "letters", "list", "--j") == {"--json"}
    assert complete("cachebus", "letters", "list", "--last", "3", "--j") == {"--json"}
    assert complete("cachebus", "forget", "7", "--y") == {"--yes"}
    assert complete("cachebus", "completion", "z") == {"zsh"}


@pytest.mark.parametrize("arguments", [["locks"], ["tail"], ["letters", "list"], ["publish", "a", "1", "--force"]])
def test_a_look_loads_neither_the_cache_nor_the_driver(arguments: list[str], deployment: dict[str, str]) -> None:
    """What needs no application starts in a quarter of a second: no views, no schedules, no web server, no redis-py."""
    program = (
        "import sys\n"
        "from cachebus.worker.cli import MODULES, main\n"
        f"arguments = {arguments!r}\n"
        "if arguments == ['tail']: __import__(MODULES['tail'])\n"  # it would not end
        "else: main(arguments)\n"
        "heavy = {'redis', 'cachebus.cache.cache', 'apscheduler', 'structlog', 'starlette', 'sqlalchemy', 'rich'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    environment = {**os.environ, **deployment, "PYTHONPATH": f"{ROOT}:{APPS}"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
