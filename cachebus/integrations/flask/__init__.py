"""Flask: an extension with `@cache.cached` and `@cache.memoize`, and cached views as HTTP responses."""

from __future__ import annotations

from cachebus.integrations.flask.extension import FlaskCache
from cachebus.integrations.flask.responses import FlaskResponder, cached_response, init_fresh_after, respond

__all__ = ["FlaskCache", "FlaskResponder", "cached_response", "init_fresh_after", "respond"]
