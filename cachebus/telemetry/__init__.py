"""What the cache counts, for OpenTelemetry and for Prometheus. Each is a module of its own, imported by who wants it.

Both read `Cache.stats()` when they are asked: nothing is counted twice, and a read pays nothing.
"""
