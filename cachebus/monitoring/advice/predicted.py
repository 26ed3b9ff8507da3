"""What a recording would have been with prediction: the same reads, with the forecaster that runs in processes. Pure.

A recording knows identities and calls as hashes, which is all that a forecast needs. It begins knowing nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from heapq import merge
from itertools import groupby
from typing import NamedTuple

from cachebus.cache.foresight.prediction.forecaster import Forecaster
from cachebus.cache.foresight.prediction.simulation import (
    SimulatedChange,
    SimulatedOutcome,
    SimulatedRead,
    SimulatedView,
    Simulation,
)
from cachebus.monitoring.advice.replay import PLAIN_TTL_MS, load_times, scattered
from cachebus.monitoring.advice.trace import Trace


class Predicted(NamedTuple):
    """The same traffic twice."""

    alone: SimulatedOutcome
    with_it: SimulatedOutcome


def predicted(
    trace: Trace, ttls_ms: Mapping[str, int], views: Collection[str], *, waste: float, price: float
) -> Predicted:
    """Return what the reads of *trace* would have waited for without prediction, and with *views* loaded ahead."""
    known = [
        SimulatedView(view.name, ttls_ms.get(view.name, view.ttl_ms or PLAIN_TTL_MS) / 1000, view.name in views)
        for view in trace.views
    ]

    def run(forecasters: list[Forecaster]) -> SimulatedOutcome:
        simulation = Simulation(known, forecasters)
        for key, at_ms in _there_before(trace).items():
            view = known[trace.keys[key].view]
            scopes = tuple(scope for scope, _ in trace.keys[key].scopes)
            simulation.lay(key, scopes, until=at_ms / 1000 + scattered(key) * view.ttl_s)
        return simulation.run(_events(trace))

    forecasters = [Forecaster(live=True, waste=waste, price=price) for _ in trace.processes]
    return Predicted(run([]), run(forecasters))


def with_identity(trace: Trace) -> list[str]:
    """Return the views whose keys are somebody's."""
    found = {facts.view for facts in trace.keys.values() if facts.identity}
    return [view.name for place, view in enumerate(trace.views) if place in found]


def _events(trace: Trace) -> Iterator[SimulatedRead | SimulatedChange]:
    load_ms = load_times(trace)
    reads = (
        SimulatedRead(
            access.at_ms / 1000,
            trace.views[trace.keys[access.key].view].name,
            trace.keys[access.key].identity or None,
            access.key,
            tuple(scope for scope, _ in trace.keys[access.key].scopes),
            load_ms[access.key],
            access.process,
        )
        for access in trace.accesses
    )
    return merge(reads, _changes(trace), key=lambda event: event.at)


def _changes(trace: Trace) -> Iterator[SimulatedChange]:
    """Yield the invalidations; those whose scope is of one identity alone are its own."""
    owners: dict[int, set[int]] = {}
    for facts in trace.keys.values():
        for scope, _ in facts.scopes:
            owners.setdefault(scope, set()).add(facts.identity)
    heard = [(at_ms, scope) for at_ms, scope in trace.invalidations() if scope in owners]
    for (at_ms, own), group in groupby(heard, key=lambda pair: (pair[0], len(owners[pair[1]]) == 1)):
        yield SimulatedChange(at_ms / 1000, tuple(scope for _, scope in group), own)


def _there_before(trace: Trace) -> dict[int, int]:
    """Return the keys that were cached when the recording began: their first read found them, and when."""
    first: dict[int, tuple[int, int]] = {}
    for access in trace.accesses:
        first.setdefault(access.key, (access.at_ms, access.loaded))
    return {key: at_ms for key, (at_ms, loaded) in first.items() if not loaded}
