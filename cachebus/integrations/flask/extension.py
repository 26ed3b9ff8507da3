"""An extension of the shape that people know, `@cache.cached` and `@cache.memoize`, over a cache never stale.

cache = FlaskCache()          # or FlaskCache(app)
cache.init_app(app)           # reads app.config, then the environment
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import os
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, ParamSpec, TypeVar

from flask import Flask, Response, has_app_context, make_response, request

from cachebus.cache.cache import Cache as AsyncCache
from cachebus.cache.settings import CacheSettings
from cachebus.cache.view import View as AsyncView
from cachebus.durations import Duration
from cachebus.environment import misspelt, variables
from cachebus.errors import ConfigurationError
from cachebus.freshness.clock import Clock
from cachebus.freshness.scopes import names
from cachebus.integrations.flask.looks import EVERY, SESSION, watched
from cachebus.sync.cache import Cache as SyncCache
from cachebus.sync.view import View
from cachebus.templates import as_name

P = ParamSpec("P")
R = TypeVar("R")

KEY_PREFIX = "flask:view:"
"""First words of the keys of pages."""
_OF_ANOTHER = ("CACHE_TYPE", "CACHE_REDIS_URL", "CACHE_REDIS_HOST", "CACHE_KEY_PREFIX", "CACHE_DEFAULT_TIMEOUT")
"""Flask-Caching's, which would be ignored without a word."""
_UNSHARED = ("set-cookie", "www-authenticate")
AUTHORIZATION = "authorization"
_WHOSE = {AUTHORIZATION, "cookie", SESSION, EVERY}
"""Who looks at one of these may make another page for each who asks."""


class FlaskCache(SyncCache):
    """A `cachebus.sync.Cache` that is a Flask extension. `FlaskCache(app)` is `FlaskCache()` and `init_app(app)`.

    Settings are the variables of docs/reference/settings.md: those in `app.config`, the others from the environment.
    """

    def __init__(self, app: Flask | None = None, *, timeout: Duration = "30s", never: Iterable[str] = ()) -> None:
        super().__init__(AsyncCache(never=never), timeout=timeout)
        self._app: Flask | None = None
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Take the settings of *app*; loads in a worker run within its context. One application a cache.

        Raises: CannotStart that lists every bad value; ConfigurationError for names of Flask-Caching.
        """
        if foreign := [name for name in _OF_ANOTHER if name in app.config]:
            raise ConfigurationError(
                f"app.config: {', '.join(foreign)}: not settings of cachebus; "
                "write REDIS_URL, CACHE_NAMESPACE, CACHE_DEFAULT_TTL (docs/howto/move-from-flask-caching.md)"
            )
        known = {each.name for each in variables(CacheSettings)}
        for warning in misspelt(sorted(name for name in app.config if isinstance(name, str)), known):
            app.logger.warning("app.config: %s", warning)
        given = {name: str(app.config[name]) for name in sorted(known) if app.config.get(name) is not None}
        self.cache.configure(CacheSettings.from_environment({**os.environ, **given}))
        self._app = app
        app.extensions["cachebus"] = self

    def cached(
        self,
        timeout: Duration | None = None,
        key: str | Callable[[], str] | None = None,
        *,
        query_string: bool = False,
        tags: str | Iterable[str] | Callable[..., str | Iterable[str]] = (),
        unless: Callable[[], bool] | None = None,
    ) -> Callable[[Callable[P, Any]], Callable[P, Response]]:
        """Cache the page that a view function makes, for everybody, under its path.

        key: instead of the path, or a function that returns one. query_string: a page for each query, whatever the
        order of its parameters. tags: names that invalidate it; a function is called with the view's arguments. unless:
        true for requests that shall not be cached.

        One request in the cluster runs the function, the others wait for the page. Kept are answers to GET and HEAD
        with status 200 that set no cookie, stream nothing, and do not say `Cache-Control: private` or `no-store`; whose
        request has no `Authorization`, that were made without a look at it, at cookies or at the session, and that say
        no `Vary`. What a *key* function itself reads of these may shape the page. Every other one is made for its own
        request alone.
        """

        def decorate(function: Callable[P, Any]) -> Callable[P, Response]:
            @functools.wraps(function)
            def page(*args: P.args, **kwargs: P.kwargs) -> Response:
                if request.method not in ("GET", "HEAD") or (unless is not None and unless()):
                    return make_response(function(*args, **kwargs))
                with watched() as told_apart:
                    name = _key(key, query_string)
                if AUTHORIZATION in request.headers and AUTHORIZATION not in told_apart:
                    return make_response(function(*args, **kwargs))
                mine: list[Response] = []

                def load() -> list[Any]:
                    with watched() as seen:
                        mine.append(response := make_response(function(*args, **kwargs)))
                    shaped_by = (seen & _WHOSE) | {field.lower() for field in response.vary}
                    if not shaped_by <= told_apart or not _is_for_everybody(response):
                        raise _OfOneRequest
                    return [list(response.headers.items()), response.get_data()]

                named = tags(*args, **kwargs) if callable(tags) else tags
                try:
                    headers, body = self.get_or_load(name, load, timeout, tags=names(named))
                except _OfOneRequest:  # also where another request made its own: what it got is not for this one
                    return mine[0] if mine else make_response(function(*args, **kwargs))
                return mine[0] if mine else Response(body, headers=headers)

            return page

        return decorate

    def memoize(
        self, timeout: Duration | None = None, *, tags: Iterable[str] = (), **options: Any
    ) -> Callable[[Callable[P, R]], View[P, R]]:
        """Cache a function's results by its arguments; *options* as of `view`, which lets you choose the key."""

        def decorate(function: Callable[P, R]) -> View[P, R]:
            parameters = ":".join(f"{{{name}}}" for name in inspect.signature(function).parameters)
            name = f"{function.__module__}.{function.__qualname__}"
            template = f"{name}:{parameters}" if parameters else name
            return self.view(template, ttl=timeout, tags=tags, **options)(function)

        return decorate

    def delete_memoized(self, function: View[P, Any], *args: P.args, **kwargs: P.kwargs) -> Clock:
        """Make one result unreadable everywhere, or, without arguments, all results of the function."""
        if args or kwargs:
            return function.invalidate(*args, **kwargs)
        fixed, braces, _ = function.name.partition("{")
        return self.invalidate(prefix=fixed) if braces else self.invalidate(keys=fixed)

    def decorator(
        self, decorate: Callable[[Callable[P, Awaitable[R]]], AsyncView[P, R]]
    ) -> Callable[[Callable[P, R]], View[P, R]]:
        """Return the decorator of a plain function."""
        return super().decorator(lambda function: decorate(self._in_context(function)))

    def _in_context(self, function: Callable[P, R]) -> Callable[P, R]:
        """Return *function* as a worker's thread runs it: within the application's context."""

        @functools.wraps(function)
        def run(*args: P.args, **kwargs: P.kwargs) -> R:
            if self._app is None or has_app_context():
                return function(*args, **kwargs)
            with self._app.app_context():
                return function(*args, **kwargs)

        return run


class _OfOneRequest(Exception):
    """The page is for the request that made it."""


def _key(key: str | Callable[[], str] | None, query_string: bool) -> str:
    name = key() if callable(key) else key if key is not None else request.path
    if query_string:
        pairs = sorted(request.args.items(multi=True))
        name += "?" + hashlib.blake2b(repr(pairs).encode(), digest_size=16).hexdigest()
    return KEY_PREFIX + as_name(name)


def _is_for_everybody(response: Response) -> bool:
    control = response.cache_control
    return (
        response.status_code == 200
        and not response.is_streamed
        and not (control.private or control.no_store)
        and not any(name in response.headers for name in _UNSHARED)
    )
