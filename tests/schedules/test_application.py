"""The schedules of the application: found by name, within their limits, and they warm what they say."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import schedules
from cachebus import Cache, CacheSettings
from cachebus.cache.upkeep.warming import Warm
from cachebus.redis.keyspace import Names
from cachebus.schedules.decorators import Job
from cachebus.schedules.scheduler import Scheduler
from cachebus.testing.server import PrivateServer
from cachebus.worker.loading import scan
from tests.support.wallclock import us
from tradesense import views

ROOT = Path(__file__).parents[2]
NEW_YORK = "America/New_York"


def modules() -> list[ModuleType]:
    """Return the modules of the application's schedules."""
    names = [module.name for module in pkgutil.iter_modules(schedules.__path__)]
    return [importlib.import_module(f"schedules.{name}") for name in names]


def jobs() -> list[Job]:
    """Return the application's jobs, as the worker finds them."""
    problems: list[str] = []
    found = scan("SCHEDULES", ("schedules",), Job, problems)
    assert not problems
    return found


def job(name: str) -> Job:
    """Return one of the application's jobs."""
    return next(each for each in jobs() if each.name == f"schedules.{name}")


def test_the_table_of_the_package_names_every_file() -> None:
    """Whoever reads `schedules/__init__.py` knows all there is; each file says what it is about."""
    assert schedules.__doc__ is not None
    for module in modules():
        assert f"| {module.__name__.partition('.')[2]}.py " in schedules.__doc__
        assert module.__doc__
        assert any(isinstance(value, Job) for value in vars(module).values())


def test_importing_the_schedules_connects_to_nothing() -> None:
    """A loader can look at them without a server, a database or a setting."""
    code = "import schedules, pkgutil, importlib\n" + (
        "for m in pkgutil.iter_modules(schedules.__path__): importlib.import_module('schedules.' + m.name)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env={"PATH": ""}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("day", [(2026, 3, 6), (2026, 3, 9), (2026, 10, 30), (2026, 11, 2)])
def test_market_data_is_warm_at_the_exchanges_hours_whatever_the_season(day: tuple[int, int, int]) -> None:
    """Friday and Monday around both changes of clocks: from nine to five, New York's time."""
    times = job("market.open_market").times
    opening, closing = us(*day, 9, zone=NEW_YORK), us(*day, 16, 59, zone=NEW_YORK)
    assert times.next(us(*day, 0, zone=NEW_YORK)) == opening
    assert times.last(us(*day, 23, zone=NEW_YORK)) == closing
    weekend = us(2026, 3, 7, 12, zone=NEW_YORK)
    assert times.last(weekend) == us(2026, 3, 6, 16, 59, zone=NEW_YORK)


@pytest.fixture
async def cache(server: PrivateServer, namespace: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Cache]:
    """The application's cache on a server of the test, its queries replaced by echoes."""
    monkeypatch.setattr(views.cache, "_settings", CacheSettings(url=server.url, namespace=namespace))
    monkeypatch.setattr(views.cache, "_names", Names(namespace))
    async with views.cache as connected:
        yield connected


async def test_each_job_warms_what_was_read(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every view of the domain is warmed by some job: the users' with what was read, the others with all there is."""
    warmed: dict[str, list[Any]] = {}

    async def note(self: Warm, view: Any, arguments: Any, **_pace: Any) -> None:
        warmed.setdefault(view.name, []).extend(arguments)

    async def read(self: Warm, view: Any, *_limits: Any, **_least: Any) -> list[Any]:
        return [("read", view.name)]

    monkeypatch.setattr(Warm, "__call__", note)
    monkeypatch.setattr(Warm, "popular", read)
    monkeypatch.setattr(Warm, "recently_active", read)
    scheduler = Scheduler(cache.client, jobs())
    for name in scheduler.jobs:
        assert await scheduler.run_now(name)
    await scheduler.drain()
    assert {status.outcome for status in await scheduler.status()} == {"done"}
    profile = views.user_profile.name
    assert set(warmed) == {view.name for view in cache.views.values()} - {profile}
    for view in (views.user_settings, views.portfolio_summary, views.trade_analytics, views.risk):
        assert set(warmed[view.name]) == {("read", view.name)}
    assert set(warmed[views.market_data.name]) >= {"AAPL", "FB", "GOOG", "IBM", "MSFT"}
