"""The metric table, and what is made from it, against what a worker and a gateway really publish."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette

from cachebus import Bus, Cache
from cachebus.bus.effects import Effects, Invalidate
from cachebus.bus.engine.bridge import Bridge
from cachebus.bus.engine.consumer import Consumer, ConsumerOptions
from cachebus.bus.engine.mover import Mover
from cachebus.bus.engine.refresher import Refresher
from cachebus.bus.handlers import on
from cachebus.gateway import Gateway
from cachebus.gateway.metrics import metrics_routes
from cachebus.integrations.dashboard import alerts, dashboard, rules
from cachebus.integrations.metric_table import PREFIX, TABLE
from cachebus.process.signals import Stop
from cachebus.process.supervisor import Service, Supervisor
from cachebus.schedules.scheduler import Scheduler
from cachebus.worker.cli import main
from cachebus.worker.engines import Engines
from cachebus.worker.health.health import Health
from cachebus.worker.health.metrics import metrics_page
from tests.support.serving import running
from tests.support.waiting import until

Samples = dict[str, list[dict[str, str]]]
"""By name, the labels of each sample."""
OTHERS = ("process_", "python_")
"""What Prometheus' client says of any program."""


def samples(page: str) -> Samples:
    """Return what a page has, with the names of the families beside those of the samples."""
    found: Samples = {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            found.setdefault(sample.name, []).append(sample.labels)
    return found


@pytest.fixture
async def published(cache: Cache) -> Samples:
    """What a worker and a gateway publish that have done a little of everything."""

    @cache.view("n:{n}", ttl="1m", tags=["n:{n}"])
    async def number(n: int) -> int:
        if n < 0:
            raise ValueError(n)
        return n

    @on("numbers", int, retries=0)
    def handled(event: int) -> Effects:
        if event < 0:
            raise ValueError(event)
        yield Invalidate(tags=f"n:{event}")

    options = ConsumerOptions(on_committed=lambda commit: cache.observed.fresh(commit.oldest_ms, commit.events))
    engines = Engines(
        consumers=[Consumer(cache.client, [handled], options=options)],
        bridge=Bridge(cache.client, [handled]),
        mover=Mover(cache.client),
        refresher=Refresher(cache.client, cache.views, reading=cache.reading),
        scheduler=Scheduler(cache.client, []),
    )

    async def serve() -> None:
        await asyncio.Event().wait()

    health = Health(cache.client, engines, Supervisor([Service("service", serve)], drain_s=1), Stop(1))
    worker = metrics_page(cache, engines, health)
    gateway = metrics_routes(cache, Gateway(cache))
    async with running(*engines.consumers):
        for event in (1, -1):
            await Bus(cache).publish("numbers", event)
        for _ in range(600):
            await number(1)
        await asyncio.gather(number(-1), return_exceptions=True)
        await until(lambda: engines.consumers[0].stats.events == 2, "both are done with")
        own = samples(worker.text().decode())
    transport = httpx.ASGITransport(Starlette(routes=gateway), client=("10.0.0.1", 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as scraper:
        theirs = samples((await scraper.get("/metrics")).text)
        assert (await scraper.get("/metrics", headers={"X-Forwarded-For": "10.0.0.1"})).status_code == 403
    assert "gateway_connections" not in "".join(own)
    return own | theirs


def asked(expression: str) -> Iterator[tuple[str, set[str]]]:
    """Yield each metric of an expression, with the labels that it is grouped or selected by."""
    for by, inner in re.findall(r"by \(([^)]*)\) \(([^()]*(?:\([^()]*\))?[^()]*)\)", expression):
        for name in re.findall(rf"\b{PREFIX}\w+", inner):
            yield name, {label for label in by.replace(" ", "").split(",") if label} - {"job", "instance"}


async def test_what_is_published_is_what_the_table_says(published: Samples) -> None:
    """One prefix; every metric of the table, with its labels, and no other. Outboxes are tested where they are."""
    own = {name for name in published if not name.startswith(OTHERS)}
    assert {name for name in own if not name.startswith(PREFIX)} == set()
    for row in TABLE.values():
        if row.part == "outbox":
            continue
        name = f"{row.published}_bucket" if row.kind == "histogram" else row.published
        assert published.get(name), name
        assert set(published[name][0]) - {"le"} == set(row.labels), name
    endings = ("_bucket", "_sum", "_count", "_created")
    known = {row.published for row in TABLE.values()}
    assert {name for name in own if name not in known and not name.endswith(endings)} == set()


async def test_dashboard_and_alerts_ask_for_what_is_published(published: Samples) -> None:
    """Every metric of every expression, with labels that it has; each metric has a panel."""
    panels = [panel for panel in dashboard()["panels"] if panel["type"] != "row"]
    shown = [target["expr"] for panel in panels for target in panel["targets"]]
    expressions = [*shown, *(alert.expression for alert in alerts())]
    for expression in expressions:
        found = list(asked(expression))
        assert len(found) == len(re.findall(rf"\b{PREFIX}\w+", expression)), expression
        for name, labels in found:
            if not name.startswith(f"{PREFIX}outbox"):
                assert labels <= set(published[name][0]), expression
    assert {row.published for row in TABLE.values()} == {
        name.removesuffix("_bucket") for expression in shown for name, _ in asked(expression)
    }
    places = [tuple(panel["gridPos"].values()) for panel in dashboard()["panels"]]
    assert len(set(places)) == len(places)
    assert len({alert.name for alert in alerts()}) == len(list(alerts()))


def test_the_command_prints_what_other_programs_read(capsys: pytest.CaptureFixture[str]) -> None:
    """A rule file, a dashboard, and a table with a line for each metric."""
    printed = {}
    for verb in ("alerts", "dashboard", "table"):
        assert main(["metrics", verb]) == 0
        printed[verb] = capsys.readouterr().out
    assert json.loads(printed["alerts"]) == rules()
    assert json.loads(printed["dashboard"])["uid"] == "cachebus"
    assert len(printed["table"].splitlines()) == 1 + len(TABLE)
