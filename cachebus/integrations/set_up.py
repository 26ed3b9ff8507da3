"""Traces without a line of code: where a program has an SDK of OpenTelemetry set up, its cache and bus are traced."""

from __future__ import annotations

import sys

from cachebus.cache.cache import Cache

SDK = "opentelemetry.sdk.trace"


def trace_if_set_up(cache: Cache) -> None:
    """Trace this process if an SDK for traces is set up. Imports nothing where none is."""
    sdk = sys.modules.get(SDK)
    if sdk is None:
        return
    from opentelemetry.trace import get_tracer_provider  # noqa: PLC0415 - there, and needed, only now

    from cachebus.integrations.opentelemetry import instrument  # noqa: PLC0415 - likewise

    if isinstance(get_tracer_provider(), sdk.TracerProvider):
        instrument(cache)
