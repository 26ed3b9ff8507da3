"""The commands for those who operate a deployment: what they show is so, and what they do is done."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from cachebus import Cache, CacheSettings
from cachebus.cache.upkeep import reporter
from cachebus.cache.upkeep.reporter import process_name
from cachebus.testing.server import PrivateServer
from tests.support.waiting import until as reported
from tests.support.worker_program import WorkerProcess, ask, until

Environment = dict[str, str]


@pytest.fixture
def worker(environment: Environment) -> Iterator[WorkerProcess]:
    """One worker of the shop, at work."""
    with WorkerProcess(environment) as worker:
        worker.said("worker started")
        yield worker


async def test_inspect_and_invalidate(environment: Environment, redis: PrivateServer) -> None:
    """A cached value is shown as valid; a dry run counts it and changes nothing; then it is invalid, and why."""
    assert ask(environment, "inspect", "orders:7:total")[0] == 1
    async with Cache(settings=CacheSettings(url=redis.url)) as cache:

        @cache.view("orders:{customer}:total", ttl="5m", tags=["customer:{customer}"])
        async def total(customer: int) -> int:
            return customer * 6

        assert await total(7) == 42
    code, said = ask(environment, "inspect", "orders:7:total")
    assert code == 0
    assert "value       42" in said
    assert "state       valid" in said
    code, said = ask(environment, "invalidate", "--tag", "customer:7")
    assert (code, "would invalidate tag 'customer:7': 1 stored entry\n" in said) == (0, True)
    assert "state       valid" in ask(environment, "inspect", "orders:7:total")[1]
    code, said = ask(environment, "invalidate", "--tag", "customer:7", "--yes")
    assert (code, said.startswith("invalidated at clock ")) == (0, True)
    assert "INVALID, is not served: t:customer:7" in ask(environment, "inspect", "orders:7:total")[1]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("invalidate",), "nothing is named"),
        (("invalidate", "--prefix", "orders"), "must end in ':'"),
        (("letters", "purge"), "name letters by id, or say --all"),
        (("schedule", "run", "nothing"), "there is no job 'nothing'"),
    ],
)
def test_bad_usage_is_refused(environment: Environment, arguments: tuple[str, ...], said: str) -> None:
    """Exit code 2 and what to write instead; nothing is done."""
    code, text = ask(environment, *arguments)
    assert code == 2
    assert said in text


def test_doctor_names_what_is_wrong(environment: Environment, redis: PrivateServer, worker: WorkerProcess) -> None:
    """A sound deployment exits with 0; an evicting server is bad, with the fix; an absent one too."""
    code, said = ask(environment, "doctor")
    assert code == 0, said
    assert "valkey 9" in said
    assert "1 worker at work" in said
    redis.ask("CONFIG", "SET", "maxmemory", "100mb")
    redis.ask("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    now_us = int(redis.ask("TIME")[0]) * 1_000_000
    redis.ask("ZADD", "{cachebus}:views", now_us, "total:{n}\nshop", now_us, "total:{n}\nbilling")
    code, said = ask({**environment, "CACHE_DEFUALT_TTL": "1"}, "doctor")
    assert code == 1
    assert "view 'total:{n}' is declared by billing and shop" in said
    assert "fix: CONFIG SET maxmemory-policy noeviction" in said
    assert "did you mean CACHE_DEFAULT_TTL?" in said
    worker.kill()
    redis.kill()
    code, said = ask(environment, "doctor")
    assert code == 1
    assert "redis unavailable" in said


def test_doctor_names_the_rule_that_is_missing(environment: Environment, redis: PrivateServer) -> None:
    """A user without channels and one command: each is bad, with the access rule to add; with them all is well."""
    redis.ask("ACL", "SETUSER", "app", "on", ">app-password", "~*", "resetchannels", "+@all", "-zrangebyscore")
    restricted = {**environment, "REDIS_URL": redis.url.replace("redis://", "redis://app:app-password@")}
    code, said = ask(restricted, "doctor")
    assert code == 1, said
    assert "fix: ACL SETUSER app &ws:*" in said
    assert "fix: ACL SETUSER app &orders" in said
    redis.ask("ACL", "SETUSER", "app", "allchannels", "+@all")
    redis.ask("CONFIG", "SET", "slowlog-log-slower-than", "0")
    code, said = ask(restricted, "doctor")
    assert (code, "this user may do everything that a worker does" in said) == (0, True), said
    commands = [entry[3] for entry in redis.ask("SLOWLOG", "GET", -1)]
    keys = [int(command[2]) for command in commands if command[0].upper().startswith(b"EVAL")]
    assert keys, "doctor runs scripts"
    assert 0 not in keys, "which a proxy before many shards would refuse"


@pytest.mark.parametrize("who", ["nobody:wrong@", ""])
def test_doctor_says_that_the_password_is_wrong(environment: Environment, redis: PrivateServer, who: str) -> None:
    """It does not wait for a server that lets it in: one finding, with what to correct. None at all is as wrong."""
    redis.ask("ACL", "SETUSER", "default", "on", "resetpass", ">secret")
    code, said = ask({**environment, "REDIS_URL": redis.url.replace("redis://", f"redis://{who}")}, "doctor")
    assert code == 1, said
    assert "BAD  REDIS_URL: the server denies access" in said
    assert "correct user and password in its URL" in said


async def test_doctor_names_a_process_whose_reads_are_refused(
    environment: Environment, redis: PrivateServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process's user may not do what reads need: it loads everything, and doctor says so in its name."""
    monkeypatch.setattr(reporter, "FLUSH_S", 0.1)
    redis.ask("ACL", "SETUSER", "web", "on", ">pw", "~*", "&*", "+@all", "-mget")
    async with Cache(settings=CacheSettings(url=redis.url.replace("redis://", "redis://web:pw@"))) as cache:

        @cache.view("refused:{n}", ttl="1m")
        async def number(n: int) -> int:
            return n

        assert await number(1) == 1
        assert "NOPERM" in cache.stats().refused or "ACL failure" in cache.stats().refused
        reports = cache.client.names.bus("processes")
        await reported(lambda: re.search(rb'"refused":"[^"]', b"".join(redis.ask("HVALS", reports))), "a report")
        code, said = ask(environment, "doctor")
    assert code == 1, said
    assert f"{process_name()}: Redis refuses its reads: " in said


def test_commands_say_that_redis_is_away(environment: Environment, redis: PrivateServer) -> None:
    """An operator's command does not wait as the worker does: one line and exit code 1."""
    redis.kill()
    for command in (("stats",), ("tail",), ("letters", "list"), ("publish", "orders", "{}", "--force")):
        code, said = ask(environment, *command)
        assert code == 1
        assert said.splitlines()[-1].startswith("redis unavailable: ")


def test_jobs_are_run_paused_and_resumed(environment: Environment, tmp_path: Path) -> None:
    """What the schedule lists, an operator can run now, pause for every worker and resume."""
    code, said = ask(environment, "schedule", "list")
    assert code == 0
    assert "shop.jobs.counting.yearly" in said
    code, said = ask(environment, "schedule", "run", "shop.jobs.counting.yearly")
    assert (code, "done " in said) == (0, True)
    assert (tmp_path / "counted").read_text() == "once\n"
    assert ask(environment, "schedule", "pause", "shop.jobs.counting.yearly")[1].count("paused") == 1
    assert "paused" not in ask(environment, "schedule", "resume", "shop.jobs.counting.yearly")[1]


def test_a_worker_runs_its_jobs(environment: Environment, tmp_path: Path) -> None:
    """A job that is due is run by the worker, and shown by stats; one that is not, is not."""
    with WorkerProcess(environment) as worker:
        worker.said("worker started")
        until((tmp_path / "ticked").exists, "the job")
        stats = json.loads(ask(environment, "stats", "--json")[1])
        names = {job["name"].removeprefix("shop.jobs.counting.") for job in stats["jobs"]}
        assert names == {"yearly", "ticking", "slowly"}
        assert worker.stop() == 0
    assert not (tmp_path / "counted").exists()
