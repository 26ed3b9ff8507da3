"""Cached views as the responses of a FastAPI application; `Fresh-After`, sessions and tickets as dependencies."""

from __future__ import annotations

import contextlib
import functools
import inspect
import typing
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Annotated, Any, ParamSpec, Protocol, TypeVar

import msgspec
from fastapi import APIRouter, Depends, Header, HTTPException, Request, Response
from fastapi.responses import FileResponse, RedirectResponse, StreamingResponse
from pydantic import BaseModel, TypeAdapter
from pydantic.errors import PydanticSchemaGenerationError, PydanticUndefinedAnnotation

from cachebus.cache.call import Demand
from cachebus.cache.view import BoundView, View, demanded
from cachebus.errors import ConfigurationError
from cachebus.foreign import is_model
from cachebus.integrations.asgi.sessions import RequestSession
from cachebus.integrations.http.body import JSON, Body, json_body
from cachebus.integrations.http.caching import unbound
from cachebus.integrations.http.renderings import Renderer
from cachebus.integrations.starlette import Endpoint, StarletteResponder, named
from cachebus.integrations.starlette import lifespan as open_parts
from cachebus.sessions.session import Session

__all__ = ["FreshAfter", "SignedIn", "cached_response", "fresh_after", "lifespan", "respond", "signed_in", "tickets"]

P = ParamSpec("P")
R = TypeVar("R")

REQUEST = "request"
BESIDE = "cachebus_response"
"""The parameters that an endpoint has beside those of its view: what was asked, and what dependencies have set."""


class FastAPIResponder(StarletteResponder):
    """Answers requests from views. As a decorator, it leaves parameters and dependencies to FastAPI, as they are.

    They run before the view is read: who may not see the answer gets none. Status and headers that they set are sent.
    A route's `response_model`, `response_class` and `status_code` are honoured.
    """

    def __call__(self, view: View[P, R] | BoundView[P, R]) -> Endpoint[P, R]:
        """Return an endpoint with the parameters of *view*."""
        self.check_route(view)
        function, owner = unbound(view, ())
        signature = _signature(function, skipped=len(owner))
        given = REQUEST in inspect.signature(function.function).parameters

        async def endpoint(**arguments: Any) -> Response:
            beside = arguments.pop(BESIDE)
            request = arguments[REQUEST] if given else arguments.pop(REQUEST)
            return await self.answered(request, view, (), arguments, beside)

        endpoint.__signature__ = signature  # type: ignore[attr-defined] # where `inspect` looks first
        endpoint.check_route = functools.partial(self._check_declared, function)  # type: ignore[attr-defined]
        return named(endpoint, view)

    @functools.cached_property
    def _renderers(self) -> dict[int, tuple[Any, Renderer[Body]]]:
        """Return those made so far by route, which is kept, so that no other gets its id."""
        return {}

    def renderer_for(self, request: Request) -> Renderer[Body]:
        """Return what makes bodies for this request's route: of its `response_model` and `response_class`."""
        route = _route_of(request)
        known = self._renderers.get(id(route))
        if known is None:
            make = None if self.media_type is not None else _body_of_route(route)
            known = (route, self.renderer if make is None else Renderer(make))
            self._renderers[id(route)] = known
        return known[1]

    def _check_declared(self, view: View[Any, Any], route: Any) -> None:
        """Raises: ConfigurationError where the route declares what a stored answer of *view* cannot do."""
        if self.media_type is not None:
            return
        _body_of_route(route)
        if getattr(route, "response_model_exclude_unset", False) and _is_models(view.codec.declared):
            raise _unset(route)

    def status_for(self, request: Request, beside: Response | None) -> int:
        """Return what a dependency has set, otherwise what the route declares."""
        if beside is None:  # `respond`: the endpoint answers
            return 200
        return beside.status_code or getattr(_route_of(request), "status_code", None) or 200


cached_response = FastAPIResponder
"""The decorator: `@cached_response()` between the route and `@cache.view(…)`. Options: those of `Responder`."""
respond = FastAPIResponder().respond
"""`await respond(request, view, …)` inside an endpoint."""


def lifespan(*parts: Any) -> Callable[[Any], contextlib.AbstractAsyncContextManager[None]]:
    """Return a lifespan that opens *parts*, such as cache and gateway, and closes them in reverse.

    A part that only closes, such as a `Bus`, is closed. Before that all routes are looked at: one that declares what a
    stored answer cannot do ends the start. Raises: ConfigurationError naming each of them.
    """
    opened = open_parts(*parts)

    @contextlib.asynccontextmanager
    async def run(app: Any) -> AsyncIterator[None]:
        problems = []
        for route in _routes_of(app):
            try:
                getattr(getattr(route, "endpoint", None), "check_route", lambda _route: None)(route)
            except ConfigurationError as refused:
                problems.append(str(refused))
        if problems:
            raise ConfigurationError("\n".join(problems))
        async with opened(app):
            yield

    return run


async def fresh_after(
    clock: Annotated[
        str, Header(alias="Fresh-After", description="Nothing older than this clock of a broadcast.")
    ] = "",
) -> AsyncIterator[str]:
    """Have every read of this request be no older than its `Fresh-After`; it is what `live.fetch` sends.

    Opaque, bounded, and of no effect but on these reads, whatever a client sends.
    """
    token = demanded.set(Demand(clock)) if clock else None
    try:
        yield clock
    finally:
        if token is not None:
            demanded.reset(token)


FreshAfter = Annotated[str, Depends(fresh_after)]
"""A parameter of an endpoint; or for all routes: `FastAPI(dependencies=[Depends(fresh_after)])`."""


async def signed_in(request: Request) -> Session:
    """Return the session of the request, from `SessionMiddleware`. Raises: HTTPException 401 where there is none."""
    requested = request.scope.get("session")
    if not isinstance(requested, RequestSession):
        raise ConfigurationError("signed_in: the application needs SessionMiddleware of cachebus.integrations.asgi")
    session = await requested.get()
    if session is None:
        raise HTTPException(401, "not signed in")
    return session


SignedIn = Annotated[Session, Depends(signed_in)]
"""A parameter of an endpoint: the session of who is signed in."""


class Issuer(Protocol):
    """What issues tickets: `cachebus.gateway.Tickets`."""

    async def issue(self, session: Session) -> str:
        """Return a ticket for the user of *session*."""
        ...


def tickets(issuer: Issuer, session: Callable[..., Any] = signed_in, *, path: str = "/ticket") -> APIRouter:
    """Return a router with `POST /ticket`: a ticket for who is signed in, as the dependency *session* says."""
    router = APIRouter()

    @router.post(path)
    async def issue_ticket(response: Response, holder: Session = Depends(session)) -> dict[str, str]:  # noqa: B008 - no text can name a closure's variable
        response.headers["Cache-Control"] = "no-store"
        return {"ticket": await issuer.issue(holder)}

    return router


def _signature(view: View[Any, Any], *, skipped: int) -> inspect.Signature:
    """Return the parameters of the view's function with their types, but the first *skipped*, and the request."""
    try:
        hints = typing.get_type_hints(view.function, include_extras=True)
    except NameError as unknown:
        raise ConfigurationError(
            f"view {view.name!r}: {unknown}; FastAPI needs the types of {view.origin} at run time"
        ) from None
    signature = inspect.signature(view.function)
    parameters = [each.replace(annotation=hints.get(name, Any)) for name, each in signature.parameters.items()]
    del parameters[:skipped]
    if REQUEST not in signature.parameters:
        parameters.append(inspect.Parameter(REQUEST, inspect.Parameter.KEYWORD_ONLY, annotation=Request))
    elif hints.get(REQUEST) is not Request:
        raise ConfigurationError(f"view {view.name!r}: its parameter 'request' is no Request; give it another name")
    for name, hint in hints.items():
        if name != "return" and isinstance(hint, type) and issubclass(hint, Response):
            raise ConfigurationError(
                f"view {view.name!r}: its parameter {name!r} is a Response, and what one load sets on it would not "
                "be sent with the stored answers; set headers and cookies in a dependency"
            )
    parameters.append(inspect.Parameter(BESIDE, inspect.Parameter.KEYWORD_ONLY, annotation=Response))
    returns = hints.get("return", Any)
    if returns is type(None):
        returns = None  # as it is written: FastAPI allows it beside a status without a body
    return signature.replace(parameters=parameters, return_annotation=returns if _is_known(returns) else Response)


def _is_known(returns: Any) -> bool:
    """Return whether Pydantic knows a type, so that FastAPI can describe it."""
    try:
        TypeAdapter(returns)
    except (PydanticSchemaGenerationError, PydanticUndefinedAnnotation):
        return False
    return True


def _route_of(request: Request) -> Any:
    """Return the route that answers: of an included router the one that has the defaults of what includes it."""
    return request.scope.get("fastapi", {}).get("effective_route_context") or request.scope.get("route")


def _routes_of(app: Any) -> Iterator[Any]:
    """Yield the routes of an application; of included routers with the defaults of what includes them."""
    for route in getattr(app, "routes", ()):
        yield from route.effective_route_contexts() if hasattr(route, "effective_route_contexts") else (route,)


_USUAL: dict[str, Any] = {
    "include": None,
    "exclude": None,
    "by_alias": True,
    "exclude_unset": False,
    "exclude_defaults": False,
    "exclude_none": False,
}
"""What a route says of its `response_model` unless told otherwise."""


def _body_of_route(route: Any) -> Callable[[Any], Body] | None:
    """Return what writes values as a route declares; None where it declares nothing.

    Raises: ConfigurationError naming what a stored answer cannot do.
    """
    model, kind = getattr(route, "response_model", None), getattr(route, "response_class", None)
    chosen: type[Response] | None = kind if isinstance(kind, type) else None  # otherwise FastAPI's own default
    options = {name: getattr(route, f"response_model_{name}", usual) for name, usual in _USUAL.items()}
    if model is None and (unusual := [name for name, usual in _USUAL.items() if options[name] != usual]):
        raise ConfigurationError(
            f"route {route.path!r}: response_model_{unusual[0]}: it needs a response_model, which this route has not"
        )
    if chosen is not None and issubclass(chosen, StreamingResponse | FileResponse | RedirectResponse):
        raise ConfigurationError(
            f"route {route.path!r}: response_class={chosen.__name__}: an answer from the cache is bytes; "
            "leave cached_response away, or choose a class such as HTMLResponse"
        )
    adapter = None if model is None else TypeAdapter(model)
    if adapter is None and chosen is None:
        return None

    def body_of_route(value: Any) -> Body:
        if options["exclude_unset"] and _holds_model(value):
            raise _unset(route)
        valid = value if adapter is None else adapter.validate_python(value, from_attributes=True)
        if chosen is None and adapter is not None:
            return Body(adapter.dump_json(valid, **options), JSON)
        if adapter is not None:
            valid = adapter.dump_python(valid, mode="json", **options)
        elif not isinstance(value, str | bytes):
            valid = msgspec.json.decode(json_body(value).data)
        return _body_of_class(chosen, valid)

    return body_of_route


def _body_of_class(chosen: Any, content: Any) -> Body:
    made = chosen(content)
    return Body(bytes(made.body), made.headers.get("content-type"))


def _unset(route: Any) -> ConfigurationError:
    return ConfigurationError(
        f"route {route.path!r}: response_model_exclude_unset: a cached model does not know which fields were unset; "
        "say response_model_exclude_defaults, or have the view return a dict"
    )


def _is_models(declared: Any) -> bool:
    """Return whether whatever is of this type is, or holds, a model: not so of a union."""
    if typing.get_origin(declared) in {list, tuple, set, frozenset, dict}:
        return any(map(_is_models, typing.get_args(declared)))
    return is_model(declared)


def _holds_model(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_holds_model, value.values()))
    if isinstance(value, list | tuple | set | frozenset):
        return any(map(_holds_model, value))
    return isinstance(value, BaseModel)
