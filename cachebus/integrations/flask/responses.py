"""Cached views as the responses of a Flask application, through `cachebus.sync`."""

from __future__ import annotations

import functools
from contextvars import Token
from typing import Any, ParamSpec, Protocol, TypeVar

import flask

from cachebus.cache.call import Demand
from cachebus.cache.view import View as AsyncView
from cachebus.cache.view import demanded
from cachebus.errors import ConfigurationError
from cachebus.integrations.http.caching import Responder
from cachebus.sync.view import View

P = ParamSpec("P")
R = TypeVar("R")


class FlaskEndpoint(Protocol[P, R]):
    """The endpoint of a route: a function that has its view beside it."""

    __name__: str
    view: View[P, R]
    """What to invalidate, refresh and warm."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> flask.Response:
        """Answer the request."""
        ...


class FlaskResponder(Responder):
    """Answers requests from views: 304 where the client has it already, otherwise the stored bytes.

    As a decorator it stands between the route and `@cache.view`; `respond` is for endpoints that do more.
    """

    def respond(self, view: View[P, R], *args: P.args, **kwargs: P.kwargs) -> flask.Response:
        """Answer the request with what *view* returns for the arguments. What it must not see, refuse before.

        `Fresh-After` is honoured. Raises: what the view raises; NotCacheable for what the body cannot hold.
        """
        self.check(_behind(view))
        environ = flask.request.environ
        tags, clock = environ.get("HTTP_IF_NONE_MATCH"), environ.get("HTTP_FRESH_AFTER", "")
        found = self.renderer.peek(view.view, args, kwargs, clock)
        if found is None:
            load = view.callers_load(*args, **kwargs)
            found = load.run(self.renderer.read(view.view, args, kwargs, clock, load.load))
        status, headers, body = self.answer(environ["REQUEST_METHOD"], tags and tags.encode("latin-1"), found)
        response = flask.Response(body, status)
        response.headers.clear()
        for name, value in headers:
            response.headers.add(name.decode("latin-1").title(), value.decode("latin-1"))
        return response

    def __call__(self, view: View[P, R]) -> FlaskEndpoint[P, R]:
        """Return an endpoint with the parameters of *view*, which it has as `.view`."""
        self.check_route(_behind(view))

        @functools.wraps(view.__wrapped__)
        def endpoint(*args: P.args, **kwargs: P.kwargs) -> flask.Response:
            return self.respond(view, *args, **kwargs)

        endpoint.view = view  # type: ignore[attr-defined] # a function may have it
        return endpoint  # type: ignore[return-value] # now it has


def _behind(view: Any) -> AsyncView[Any, Any]:
    if isinstance(view, AsyncView):
        raise ConfigurationError(
            f"view {view.name!r} is of the asynchronous cache: Flask answers from `cachebus.sync.Cache`, and its view "
            "is a plain `def`"
        )
    behind: AsyncView[Any, Any] = getattr(view, "view", view)
    return behind


cached_response = FlaskResponder
"""The decorator: `@cached_response()` between the route and `@cache.view(…)`. Options: those of `Responder`."""
respond = FlaskResponder().respond
"""`respond(view, …)` inside an endpoint."""


def init_fresh_after(app: flask.Flask) -> None:
    """Have every read of a request be no older than its `Fresh-After`, which `live.fetch` sends."""

    @app.before_request
    def demand() -> None:
        if clock := flask.request.headers.get("Fresh-After"):
            flask.g.cachebus_demand = demanded.set(Demand(clock))

    @app.teardown_request
    def release(_error: BaseException | None) -> None:
        token: Token[Demand] | None = flask.g.pop("cachebus_demand", None)
        if token is not None:
            demanded.reset(token)
