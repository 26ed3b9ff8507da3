"""TradeSense's Redis caching strategy, under its own names: paste its examples, and they run.

    from tradesense.core.cache import cache_manager, cache_response, query_cache, invalidate_trades_cache, …
    from tradesense.core.redis_enhancements import session_store, rate_limiter, pubsub, distributed_lock, …

Importing connects to nothing; the first call does, and reads `REDIS_URL` and `CACHE_*`. What is called without `await`
blocks its caller for a round trip, in an event loop too: there, code that must not block uses `cachebus` itself.
`docs/reference/spec-names.md` says what is behind each name.
"""
