"""The commands for those who operate a deployment: what they show is so, and what they do is done."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import ROOT, WorkerProcess, ask, until

from cachebus import Cache, CacheSettings
from cachebus.private_server import PrivateServer

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
    assert (code, "would invalidate tag 'customer:7': 1 stored entries" in said) == (0, True)
    assert "state       valid" in ask(environment, "inspect", "orders:7:total")[1]
    code, said = ask(environment, "invalidate", "--tag", "customer:7", "--yes")
    assert (code, said.startswith("invalidated at clock ")) == (0, True)
    assert "INVALID, is not served: t:customer:7" in ask(environment, "inspect", "orders:7:total")[1]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("invalidate",), "nothing is named"),
        (("invalidate", "--prefix", "orders"), "must end in ':'"),
        (("deadletter", "purge"), "name letters by id, or say --all"),
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
    assert "1 workers at work" in said
    redis.ask("CONFIG", "SET", "maxmemory", "100mb")
    redis.ask("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    code, said = ask({**environment, "CACHE_DEFUALT_TTL": "1"}, "doctor")
    assert code == 1
    assert "fix: CONFIG SET maxmemory-policy noeviction" in said
    assert "did you mean CACHE_DEFAULT_TTL?" in said
    worker.kill()
    redis.kill()
    code, said = ask(environment, "doctor")
    assert code == 1
    assert "redis does not answer" in said


def test_commands_say_that_redis_is_away(environment: Environment, redis: PrivateServer) -> None:
    """An operator's command does not wait as the worker does: one line and exit code 1."""
    redis.kill()
    for command in (("stats",), ("tail",), ("deadletter", "list"), ("publish", "orders", "{}")):
        code, said = ask(environment, *command)
        assert code == 1
        assert said.splitlines()[-1].startswith("redis does not answer: ")


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
        assert {job["name"] for job in stats["jobs"]} == {"shop.jobs.counting.yearly", "shop.jobs.counting.ticking"}
        assert worker.stop() == 0
    assert not (tmp_path / "counted").exists()


def test_reload_starts_again_when_a_file_changes(environment: Environment, tmp_path: Path) -> None:
    """In development: change a handler, the worker is started anew; Ctrl-C ends both with 0."""
    package = tmp_path / "edited"
    package.mkdir()
    (package / "__init__.py").write_text("")
    environment |= {"HANDLERS": "edited", "PYTHONPATH": f"{tmp_path}:{ROOT}:{ROOT / 'tests/acceptance'}"}
    with WorkerProcess(environment, "run", "--reload") as watched:
        watched.said("worker started")
        (package / "more.py").write_text("from shop.orders.placed import order_placed\n")
        until(lambda: watched.text.count('"message":"worker started"') == 2, "the second start")
        assert [line["handlers"] for line in watched.lines if line["message"] == "worker started"] == [0, 1]
        watched.signal(signal.SIGINT)
        assert watched.ended() == 0
