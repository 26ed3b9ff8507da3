"""Cached views as the responses of a Starlette application. FastAPI has `cachebus.integrations.fastapi`."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, ParamSpec, Protocol, TypeVar

from starlette.requests import Request
from starlette.responses import Response

from cachebus.cache.view import BoundView, View
from cachebus.integrations.http.body import Body
from cachebus.integrations.http.caching import Responder, ResponseParts, asked, merged, unbound
from cachebus.integrations.http.renderings import Renderer

P = ParamSpec("P")
R = TypeVar("R")


class Endpoint(Protocol[P, R]):
    """The endpoint of a route: a function, for frameworks look for one, that has its view beside it."""

    view: View[P, R]
    """What to invalidate, refresh and warm."""

    def __call__(self, *args: Any, **kwargs: Any) -> Awaitable[Response]:
        """Answer a request."""
        ...


class StarletteResponder(Responder):
    """Answers requests from views: 304 where the client has it already, otherwise the stored bytes.

    As a decorator it stands between the route and `@cache.view`; `respond` is for endpoints that do more.
    """

    async def respond(
        self, request: Request, view: View[P, R] | BoundView[P, R], *args: P.args, **kwargs: P.kwargs
    ) -> Response:
        """Answer *request* with what *view* returns for the arguments. What the request must not see, refuse before.

        `Fresh-After` is honoured. Raises: what the view raises; NotCacheable for what the body cannot hold.
        """
        self.check(view)
        return await self.answered(request, view, args, kwargs)

    def __call__(self, view: View[P, R] | BoundView[P, R]) -> Endpoint[P, R]:
        """Return an endpoint that reads *view* with the parameters of the path."""
        self.check_route(view)

        async def endpoint(request: Request) -> Response:
            return await self.answered(request, view, (), request.path_params)

        return named(endpoint, view)

    async def answered(
        self,
        request: Request,
        view: View[Any, Any] | BoundView[Any, Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        beside: Response | None = None,
    ) -> Response:
        """Do the same, with the arguments as they come. *beside* has the status and headers that others have set."""
        scope = request.scope
        view, args = unbound(view, args)
        tags, clock = asked(scope["headers"])
        found = await self.renderer_for(request).read(view, args, kwargs, clock)
        answer = self.answer(scope["method"], tags, found, self.status_for(request, beside))
        return StoredResponse(answer if beside is None else merged(answer, beside.raw_headers))

    def status_for(self, request: Request, beside: Response | None) -> int:
        """Return the status of what this request's route answers."""
        return 200

    def renderer_for(self, request: Request) -> Renderer[Body]:
        """Return what makes bodies for this request's route."""
        return self.renderer


class StoredResponse(Response):
    """A response that was made before: its headers are as they are sent."""

    def __init__(self, answer: ResponseParts) -> None:
        self.status_code, self.raw_headers, self.body = answer
        self.background = None


def named(endpoint: Callable[..., Awaitable[Response]], view: View[P, R] | BoundView[P, R]) -> Endpoint[P, R]:
    """Return *endpoint* under the name of the view's function, with the view beside it."""
    function, _ = unbound(view, ())
    for attribute in ("__name__", "__doc__"):
        setattr(endpoint, attribute, getattr(function, attribute))
    endpoint.__module__, endpoint.__qualname__ = function.module, function.origin.removeprefix(f"{function.module}.")
    endpoint.view = view  # type: ignore[attr-defined] # a function may have it
    return endpoint  # type: ignore[return-value] # now it has


cached_response = StarletteResponder
"""The decorator: `@cached_response()` above `@cache.view(…)`. Options: those of `Responder`."""
respond = StarletteResponder().respond
"""`await respond(request, view, …)` inside an endpoint."""


def lifespan(*parts: Any) -> Callable[[Any], contextlib.AbstractAsyncContextManager[None]]:
    """Return a lifespan that opens *parts*, such as cache and gateway, and closes them in reverse.

    A part that only closes, such as a `Bus`, is closed.
    """

    @contextlib.asynccontextmanager
    async def run(_app: Any) -> AsyncIterator[None]:
        async with contextlib.AsyncExitStack() as stack:
            for part in parts:
                if hasattr(part, "__aenter__"):
                    await stack.enter_async_context(part)
                else:
                    stack.push_async_callback(part.close)
            yield

    return run
