"""What a trace costs: an event published, handled and broadcast, without a tracer and with OpenTelemetry's SDK."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Sequence

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Sampler

from cachebus import Broadcast, Bus, Client, on
from cachebus.bus.effects import Effects
from cachebus.bus.engine.consumer import Consumer
from cachebus.integrations.opentelemetry import instrument
from cachebus.testing.server import PrivateServer
from cachebus.tracing import installed

EVENTS, ROUNDS = 5_000, 5


class Nowhere(SpanExporter):
    """Exports to nobody: what the network to a collector costs is the collector's row."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Take spans."""
        return SpanExportResult.SUCCESS


@on("orders", int)
def placed(number: int) -> Effects:
    """Broadcast each."""
    yield Broadcast(f"user:{number % 100}", "order.placed")


def use(sampler: Sampler | None) -> None:
    """Trace from now on, or not."""
    installed.tracer = None
    if sampler is not None:
        provider = TracerProvider(sampler=sampler)
        provider.add_span_processor(SimpleSpanProcessor(Nowhere()))
        instrument(tracer=provider.get_tracer("bench"))


async def measure(url: str) -> tuple[float, float]:
    """Return the CPU time of one publish and of one event handled, microseconds."""
    async with Client(url) as client:
        await client.store.call("FLUSHALL", timeout_s=30)
        bus = Bus(client)
        began = time.process_time()
        for first in range(0, EVENTS, 500):
            await asyncio.gather(*[bus.publish("orders", number) for number in range(first, first + 500)])
        published = time.process_time()
        running = asyncio.create_task(Consumer(client, [placed]).run())
        while await client.store.call("XLEN", client.names.feed) < EVENTS:  # noqa: ASYNC110 - the server counts it
            await asyncio.sleep(0.005)
        handled = time.process_time()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    return (published - began) * 1e6 / EVENTS, (handled - published) * 1e6 / EVENTS


def main() -> None:
    """Measure in turn, print the medians."""
    kinds: dict[str, Sampler | None] = {"no tracer": None, "not sampled": ALWAYS_OFF, "sampled": ALWAYS_ON}
    found: dict[str, list[tuple[float, float]]] = {kind: [] for kind in kinds}
    with PrivateServer.start("appendonly no", 'save ""') as server:
        for number in range(ROUNDS + 1):
            for kind, sampler in kinds.items():
                use(sampler)
                cost = asyncio.run(measure(server.url))
                if number:  # the first round warms the machine
                    found[kind].append(cost)
    print(f"CPU time of the client, us; median of {ROUNDS} rounds of {EVENTS:,} events")
    print(f"{'':<14}{'publish':>10}{'handle and commit':>20}")
    for kind, costs in found.items():
        publish, handle = (statistics.median(part) for part in zip(*costs, strict=True))
        print(f"{kind:<14}{publish:>10.1f}{handle:>20.1f}")


if __name__ == "__main__":
    main()
