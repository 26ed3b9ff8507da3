"""What is made from a cached value, such as the body of an HTTP response: made once, and kept with it in memory.

A rendering is valid exactly as long as its value is, and is judged as it is: it has no key, no TTL and no tags.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sized
from typing import Any, Generic, NamedTuple, TypeVar

from cachebus.cache.call import USUAL
from cachebus.cache.tiers.s3fifo import MOST_HITS, CachedValue
from cachebus.cache.view import View, demanded
from cachebus.clock import now_s

T = TypeVar("T", bound=Sized)


class Rendering(NamedTuple, Generic[T]):
    """What a read brought, rendered. Ages are seconds; None where memory does not hold the value."""

    made: T
    loaded: bool = False
    """Whether the view's function ran for this read."""
    age_s: float | None = None
    """Since the value was loaded."""
    left_s: float | None = None
    """Until it is no longer fresh."""
    detail: str = ""
    """What answered, where the function did not run: `memory`, `redis`, or a load that was `joined`."""


class Renderer(Generic[T]):
    """Makes one thing of the values of a view. `len()` of what it makes is what that takes in memory."""

    def __init__(self, make: Callable[[Any], T]) -> None:
        self._make = make

    async def read(
        self,
        view: View[Any, Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        fresh_after: str = "",
        load: Callable[[], Awaitable[Any]] | None = None,
    ) -> Rendering[T]:
        """Read the view as a call does, and return the rendering of its value; *load* replaces running the function.

        Memory: no round trip, and nothing is made that was made before. Raises: what the load raises.
        """
        held = _held(view, args, kwargs, fresh_after)
        if held is not None:
            rendering = self._hit(view, held, args, kwargs, self._keep(view, held, args, kwargs))
            if not view.stats.l1_hits % view.sample_hits:
                view.notice(held, args, kwargs)
            return rendering
        loaded, came_at = False, now_s()

        async def run() -> Any:
            nonlocal loaded
            loaded = True
            return await (view.run(*args, **kwargs) if load is None else load())

        demand = {"fresh_after": fresh_after} if fresh_after else {}
        value = await view.read_with(run, args, {**kwargs, **demand})
        held = _held(view, args, kwargs, fresh_after)  # a read that begins now would be answered with it
        held = held if held is not None else _holder(view, value, args, kwargs)
        if held is None:
            return Rendering(self._make(value), loaded)
        # What was loaded since this read began, and not by it, another read loads, here or in another process.
        detail = "" if loaded else "joined" if held.loaded_at > came_at else "redis"
        return _aged(self._keep(view, held, args, kwargs), held, loaded=loaded, detail=detail)

    def peek(
        self, view: View[Any, Any], args: tuple[Any, ...], kwargs: dict[str, Any], fresh_after: str = ""
    ) -> Rendering[T] | None:
        """Return what was made before of a value in memory that may be served as it is. Any thread; no round trip."""
        held = _held(view, args, kwargs, fresh_after)
        made: T | None = held.renderings.get(self) if held is not None and held.renderings is not None else None
        return None if held is None or made is None else self._hit(view, held, args, kwargs, made)

    def _hit(
        self, view: View[Any, Any], held: CachedValue, args: tuple[Any, ...], kwargs: dict[str, Any], made: T
    ) -> Rendering[T]:
        if held.hits < MOST_HITS:
            held.hits += 1
        view.stats.l1_hits += 1
        if view.watchers:
            view.show_hit(held, args, kwargs)
        return _aged(made, held, detail="memory")

    def _keep(self, view: View[Any, Any], held: CachedValue, args: tuple[Any, ...], kwargs: dict[str, Any]) -> T:
        """Return what is made of what memory holds; made once, and kept with it. In the loop's thread."""
        made: T | None = held.renderings.get(self) if held.renderings is not None else None
        if made is None:
            made = self._make(held.value if held.payload is None else view.codec.decode(held.payload))
            held.renderings = {**(held.renderings or {}), self: made}
            if (reader := view.host.reader) is not None:
                reader.memory.store.grow(view.key(*args, **kwargs), held, len(made))
        return made


def _aged(made: T, held: CachedValue, *, loaded: bool = False, detail: str = "") -> Rendering[T]:
    now = now_s()
    return Rendering(made, loaded, now - held.loaded_at, held.fresh_until - now, detail)


def _held(view: View[Any, Any], args: tuple[Any, ...], kwargs: dict[str, Any], fresh_after: str) -> CachedValue | None:
    """Return what memory holds, if it meets what this context and *fresh_after* demand."""
    demand, reader = demanded.get(), view.host.reader
    if demand is USUAL and not fresh_after:
        return view.held(args, kwargs)
    if reader is None or demand.strict or demand.load_only:
        return None
    if not all(reader.freshness.has_reached(clock) for clock in (demand.fresh_after, fresh_after) if clock):
        return None
    token = demanded.set(USUAL)  # its demand is met
    try:
        return view.held(args, kwargs)
    finally:
        demanded.reset(token)


def _holder(view: View[Any, Any], value: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> CachedValue | None:
    """Return what memory holds, where that is the very *value* that was just read: one asked about, or a stale one."""
    reader = view.host.reader
    held = None if reader is None else reader.memory.held.get(view.key(*args, **kwargs))
    return held if held is not None and held.payload is None and held.value is value else None
