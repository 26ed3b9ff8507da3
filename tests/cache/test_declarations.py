"""Two applications with one key in one deployment: people are told, nothing is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cachebus import Cache, CacheSettings, View
from cachebus.cache.upkeep.declarations import package_of, shared_views
from cachebus.testing.server import PrivateServer
from tests.support.waiting import until


def declared(cache: Cache, module: str, template: str) -> View[..., Any]:
    """Declare a view as a module of an application would."""

    async def function(n: int) -> int:
        return n

    function.__module__ = module
    return cache.view(template, ttl="1m")(function)


async def test_two_applications_with_one_key_are_warned_of(
    server: PrivateServer, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever starts second says which view, which applications, and what to do; and says nothing of other views."""
    settings = CacheSettings(url=server.url, namespace=namespace)
    shop, billing = Cache(settings=settings), Cache(settings=settings)
    declared(shop, "shop.views", "total:{n}")
    declared(shop, "shop.other", "cart:{n}")
    theirs = declared(billing, "billing.views", "total:{n}")
    declared(billing, "billing.reports.views", "report:{n}")

    def count() -> int:
        return int(server.ask("ZCARD", f"{{{namespace}}}:views") or 0)

    async with shop:
        await until(lambda: count() == 2, "the views of the shop")
        assert "declared by" not in caplog.text
        async with billing:
            await until(lambda: "declared by" in caplog.text, "a warning")
            assert "view 'total:{n}' is declared by billing and shop" in caplog.text
            assert "CACHE_NAMESPACE" in caplog.text
            assert "cart" not in caplog.text
            assert [shared.template for shared in await shared_views(billing.client)] == ["total:{n}"]
            assert await theirs(7) == 7


async def test_several_processes_of_one_application_are_nothing_to_say(
    server: PrivateServer, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Web processes and workers declare the same views."""
    settings = CacheSettings(url=server.url, namespace=namespace)
    web, worker = Cache(settings=settings), Cache(settings=settings)
    for cache in (web, worker):
        declared(cache, "shop.views", "total:{n}")
    async with web, worker:
        await until(lambda: server.ask("ZCARD", f"{{{namespace}}}:views"), "the views of the shop")
        assert await shared_views(worker.client) == []
    assert "declared by" not in caplog.text


@pytest.mark.parametrize(("command", "package"), [(["-m", "shop.web"], "shop"), (["shop/web.py"], "web")])
def test_a_program_is_called_by_its_package_or_its_file(tmp_path: Path, command: list[str], package: str) -> None:
    """`__main__` is every program's name, and would tell nothing."""
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "web.py").write_text(
        "from cachebus.cache.upkeep.declarations import package_of\nprint(package_of(__name__))\n"
    )
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, *command],
        cwd=tmp_path,
        env={"PYTHONPATH": root},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.strip() == package
    assert package_of("shop.views.totals") == "shop"
