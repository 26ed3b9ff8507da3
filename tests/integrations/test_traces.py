"""One trace from a request in one application to the socket in a browser; without a tracer, nothing."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI, Request
from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from sqlalchemy import MetaData
from sqlalchemy.ext.asyncio import create_async_engine

from cachebus import Bus, Cache, sync
from cachebus.bus.dead_letters import DeadLetters
from cachebus.bus.effects import Broadcast, Drop, Effects, Invalidate, Publish, Refresh
from cachebus.bus.engine.consumer import Consumer
from cachebus.bus.engine.local_consumer import LocalConsumer
from cachebus.bus.engine.mover import Mover
from cachebus.bus.engine.refresher import Refresher
from cachebus.bus.events import Event
from cachebus.bus.handlers import on
from cachebus.integrations.opentelemetry import instrument
from cachebus.integrations.sqlalchemy.outbox import Outbox
from cachebus.integrations.sqlalchemy.relay import Relay
from cachebus.tracing import installed
from tests.conftest import Connect
from tests.support.gateway_site import Site, hear
from tests.support.serving import fed, running
from tests.support.waiting import until


class Traces:
    """What was exported."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer: Tracer = provider.get_tracer("test")

    @property
    def spans(self) -> dict[str, ReadableSpan]:
        """Finished spans by name."""
        return {span.name: span for span in self.exporter.get_finished_spans()}

    def paths(self) -> set[str]:
        """Return each span's names from the root on; one whose parent was not exported begins with `?`."""
        found = {span.context.span_id: span for span in self.exporter.get_finished_spans()}

        def path(span: ReadableSpan) -> str:
            if span.parent is None:
                return span.name
            above = found.get(span.parent.span_id)
            return f"{path(above) if above is not None else '?'} > {span.name}"

        return {path(span) for span in found.values()}


@pytest.fixture
def traces() -> Iterator[Traces]:
    """A tracer that is not installed yet, and its exporter; nothing stays installed."""
    yield Traces()
    installed.tracer = None


@asynccontextmanager
async def application(traces: Traces, app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """Serve *app* with the server spans that OpenTelemetry's own instrumentation makes of requests."""

    @app.middleware("http")
    async def traced(request: Request, call_next):  # type: ignore[no-untyped-def] # as FastAPI documents it
        context = TraceContextTextMapPropagator().extract(dict(request.headers), Context())
        name = f"{request.method} {request.url.path}"
        with traces.tracer.start_as_current_span(name, context, SpanKind.SERVER):
            return await call_next(request)

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app") as client:
        yield client


async def test_one_trace_from_a_post_to_the_socket_and_the_refetch(traces: Traces, connect: Connect) -> None:
    """Publish, handle, publish further, refresh, deliver, fetch again: every parent is there, and there is one root."""
    mine, works, reads = await connect(), await connect(), await connect()
    instrument(mine, works, reads, tracer=traces.tracer)
    orders, site = Bus(mine), Site(works.client)
    audited: list[str] = []

    @works.view("orders:{user_id}", ttl="1m")
    async def refreshed(user_id: int) -> int:
        return user_id

    @reads.view("orders:{user_id}:page", ttl="1m", tags=["user:{user_id}"])
    async def page(user_id: int) -> int:
        return user_id

    @on("orders", dict[str, int])
    def placed(event: dict[str, int]) -> Effects:
        yield Invalidate(tags=[f"user:{event['user_id']}"])
        yield Broadcast(f"user:{event['user_id']}", "order.placed")
        yield Refresh(refreshed, event["user_id"])
        yield Publish("audit", event)

    @on("audit", dict[str, int])
    async def audit(_: dict[str, int], envelope: Event) -> None:
        audited.append(envelope.traceparent)

    shop, store = FastAPI(), FastAPI()

    @shop.post("/orders")
    async def order(_: Request) -> None:
        await orders.publish("orders", {"user_id": 42})

    @store.get("/orders")
    async def listed(request: Request) -> int:
        return await page(42, fresh_after=request.headers["fresh-after"])

    consumer = Consumer(works.client, [placed, audit])
    refresher = Refresher(works.client, works.views, reading=works.reading)
    async with (
        site.running(),
        running(consumer, refresher),
        site.socket("user:42") as browser,
        application(traces, shop) as a,
        application(traces, store) as b,
    ):
        await hear(browser)
        await a.post("/orders")
        heard = await hear(browser)
        again = {"traceparent": heard["traceparent"], "fresh-after": heard["fresh_after"]}
        assert (await b.get("/orders", headers=again)).json() == 42
        await until(lambda: audited and refresher.stats.loaded, "all is done")
        await until(lambda: len(traces.spans) == 9, "all is exported")
    handled = "POST /orders > publish orders > process orders"
    assert traces.paths() == {
        "POST /orders",
        "POST /orders > publish orders",
        handled,
        f"{handled} > process audit",
        f"{handled} > refresh orders:{{user_id}}",
        f"{handled} > refresh orders:{{user_id}} > load orders:{{user_id}}",
        f"{handled} > deliver user:42",
        f"{handled} > deliver user:42 > GET /orders",
        f"{handled} > deliver user:42 > GET /orders > load orders:{{user_id}}:page",
    }
    assert len({span.context.trace_id for span in traces.spans.values()}) == 1
    process = traces.spans["process orders"]
    assert process.kind is SpanKind.CONSUMER
    assert traces.spans["publish orders"].kind is SpanKind.PRODUCER
    attributes = dict(process.attributes or {})
    assert (
        attributes.pop("messaging.message.id")
        == (traces.spans["publish orders"].attributes or {})["messaging.message.id"]
    )
    assert attributes == {
        "messaging.system": "cachebus",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": "orders",
        "messaging.consumer.group.name": placed.name,
        "cachebus.bus.attempt": 1,
    }
    assert (traces.spans["deliver user:42"].attributes or {})["cachebus.gateway.clients"] == 1


async def test_retries_belong_to_the_trace_and_only_failures_are_errors(traces: Traces, cache: Cache) -> None:
    """Each attempt is a span; `Drop` is what the handler wanted."""
    instrument(tracer=traces.tracer)
    ended: list[int] = []

    @on("flaky", int, backoff="1ms")
    def flaky(_: int, envelope: Event) -> None:
        if envelope.attempt == 1:
            raise ValueError("not yet")
        ended.append(envelope.attempt)
        raise Drop

    async with running(Consumer(cache.client, [flaky])):
        await Bus(cache).publish("flaky", 1)
        await until(lambda: ended == [2], "it was tried again")
        await until(lambda: len(traces.exporter.get_finished_spans()) == 3, "exported")
    assert traces.paths() == {"publish flaky", "publish flaky > process flaky"}
    published, first, second = traces.exporter.get_finished_spans()
    assert [span.status.status_code for span in (published, first, second)] == [
        StatusCode.UNSET,
        StatusCode.ERROR,
        StatusCode.UNSET,
    ]
    assert (first.attributes or {})["error.type"] == "ValueError"
    assert [event.name for event in first.events] == ["exception"]
    assert (second.attributes or {})["cachebus.bus.attempt"] == 2


async def test_a_delayed_event_belongs_to_the_trace_of_who_delayed_it(traces: Traces, cache: Cache) -> None:
    """Whether a request or a handler did."""
    instrument(tracer=traces.tracer)

    @on("first", int)
    def first(_: int) -> Effects:
        yield Publish("second", 2, after="1ms")

    @on("second", int)
    def second(_: int) -> None:
        return None

    async with running(Consumer(cache.client, [first, second]), Mover(cache.client)):
        await Bus(cache).publish("first", 1, delay="1ms")
        await until(lambda: "process second" in traces.spans, "both are handled")
    assert traces.paths() == {
        "publish first",
        "publish first > process first",
        "publish first > process first > process second",
    }


async def test_an_event_of_the_outbox_belongs_to_the_trace_of_the_transaction(
    traces: Traces, cache: Cache, tmp_path: Path
) -> None:
    """Whenever, and by whichever worker, it is published; one that was written without a trace begins its own."""
    metadata = MetaData()
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/shop.db")
    outbox = Outbox(metadata, lambda: engine)

    @on("paid", int)
    def paid(_: int) -> None:
        return None

    async with engine.begin() as connection:
        await connection.run_sync(metadata.create_all)
        await connection.execute(outbox.insert("paid", 0))
        instrument(tracer=traces.tracer)
        with traces.tracer.start_as_current_span("transaction"):
            await connection.execute(outbox.insert("paid", 1))
    async with running(Consumer(cache.client, [paid]), Relay(outbox, Bus(cache))):
        await until(lambda: len(traces.exporter.get_finished_spans()) == 5, "both are handled")
    await engine.dispose()
    own = ("publish paid", "publish paid > process paid")
    assert traces.paths() == {"transaction", *own, *(f"transaction > {path}" for path in own)}


async def test_a_list_of_events_is_linked_to_each_of_them(traces: Traces, cache: Cache) -> None:
    """One span for one call: a child of the first event, with a link for every other one that was traced."""
    bus = Bus(cache)
    await bus.publish("many", 0)  # before anybody traced
    instrument(tracer=traces.tracer)
    for number in (1, 2):
        await bus.publish("many", number)
    got: list[list[int]] = []

    @on("many", int, batch=10)
    async def many(events: list[int]) -> None:
        got.append(events)

    async with running(Consumer(cache.client, [many])):
        await until(lambda: got == [[0, 1, 2]] and "process many" in traces.spans, "handled")
    process = traces.spans["process many"]
    published = [span.context.span_id for span in traces.exporter.get_finished_spans() if span.name == "publish many"]
    assert process.parent is None
    assert [link.context.span_id for link in process.links] == published
    assert (process.attributes or {})["messaging.batch.message_count"] == 3


async def test_it_is_the_same_without_a_server_and_from_threads(traces: Traces) -> None:
    """Events, effects and refreshes of one process; `cachebus.sync` publishes within the caller's span."""
    async with Cache.memory() as cache:
        instrument(cache, tracer=traces.tracer)

        @cache.view("n:{n}", ttl="1m")
        async def number(n: int) -> int:
            return n

        @on("numbers", int)
        def handled(event: int) -> Effects:
            yield Refresh(number, event)
            if event:
                yield Publish("numbers", 0)

        def publish() -> None:
            with traces.tracer.start_as_current_span("request"):
                sync.Bus(facade).publish("numbers", 1)

        facade = sync.Cache(cache)
        facade.portal.use(asyncio.get_running_loop())
        async with running(LocalConsumer(cache, [handled])):
            await asyncio.to_thread(publish)
            await until(lambda: len(traces.exporter.get_finished_spans()) == 8, "all is done")
    first = "request > publish numbers > process numbers"
    assert traces.paths() == {
        "request",
        "request > publish numbers",
        first,
        f"{first} > refresh n:{{n}}",
        f"{first} > refresh n:{{n}} > load n:{{n}}",
        f"{first} > process numbers",
        f"{first} > process numbers > refresh n:{{n}}",
        f"{first} > process numbers > refresh n:{{n}} > load n:{{n}}",
    }


async def test_what_others_write_there_does_no_harm(traces: Traces, cache: Cache) -> None:
    """A `traceparent` that is none, or longer than one, begins a trace; the event is handled."""
    instrument(tracer=traces.tracer)
    handled: list[Event] = []

    @on("foreign", int)
    def foreign(_: int, envelope: Event) -> None:
        handled.append(envelope)

    fields = ("channel", "foreign", "payload", "1", "traceparent")
    for odd in (b"\xff\x00", b"00-0-0-00", b"0" * 100_000, b"00-" + b"0" * 32 + b"-" + b"0" * 16 + b"-01"):
        await cache.client.store.call("XADD", cache.client.names.bus("events", "0"), "*", *fields, odd)
    async with running(Consumer(cache.client, [foreign])):
        await until(lambda: len(handled) == 4, "all are handled")
    assert traces.paths() == {"process foreign"}
    assert max(len(envelope.traceparent) for envelope in handled) == 55


async def test_a_refresh_that_is_given_up_keeps_its_arguments(traces: Traces, cache: Cache) -> None:
    """The dead letter has them as without a trace, so that it can be replayed."""
    instrument(tracer=traces.tracer)

    @cache.view("gone:{n}", ttl="1m")
    async def gone(n: int) -> int:
        return n

    @on("gone", int)
    def handled(event: int) -> Effects:
        yield Refresh(gone, event)

    async with running(Consumer(cache.client, [handled])):
        await Bus(cache).publish("gone", 7)
        items = cache.client.names.bus("refresh-items")
        key, item = await until(lambda: cache.client.store.call("HGETALL", items), "it is asked for")
    context = traces.spans["process gone"].context
    assert f"\n[7]\n00-{context.trace_id:032x}-{context.span_id:016x}-" in item.decode()
    names = cache.client.names
    keys = (names.bus("refreshes"), items, names.bus("deadletters"), names.bus("deadletter-ids"))
    await cache.client.store.run("bus/engine/settle_refresh", keys, (key, "failed", 1, 1, 10, "reason", "detail"))
    (letter,) = await DeadLetters(cache).list()
    assert gone.decode_arguments(letter.payload) == (7,)


async def test_without_a_tracer_nothing_travels(cache: Cache) -> None:
    """Neither in the stream nor in what browsers get."""

    @on("plain", int)
    def plain(_: int) -> Effects:
        yield Broadcast("user:1", "plain")

    async with running(Consumer(cache.client, [plain])):
        await Bus(cache).publish("plain", 1)
        await until(lambda: fed(cache.client), "broadcast")
    ((_, fields),) = await cache.client.store.call("XRANGE", cache.client.names.bus("events", "0"), "-", "+")
    assert fields[::2] == [b"channel", b"payload", b"id", b"by"]
    (record,) = await fed(cache.client)
    assert b"traceparent" not in record.message


def test_a_program_with_an_sdk_is_traced_and_one_without_imports_nothing() -> None:
    """What the worker and the gateway do at their start; a provider that was only imported is none that is set up."""
    program = (
        "import sys\n"
        "from cachebus import Cache\n"
        "from cachebus.integrations.set_up import trace_if_set_up\n"
        "from cachebus.tracing import installed\n"
        "cache = Cache.memory()\n"
        "trace_if_set_up(cache)\n"
        "assert installed.tracer is None and 'opentelemetry' not in sys.modules\n"
        "from opentelemetry import trace\n"
        "from opentelemetry.sdk.trace import TracerProvider\n"
        "trace_if_set_up(cache)\n"
        "assert installed.tracer is None\n"
        "trace.set_tracer_provider(TracerProvider())\n"
        "trace_if_set_up(cache)\n"
        "trace_if_set_up(cache)\n"
        "assert cache.observers == (installed.tracer,)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
