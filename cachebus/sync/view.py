"""A cached plain function: called like the function, loaded in the caller's thread."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, ParamSpec, TypeVar

from cachebus.cache.binding import RESERVED
from cachebus.cache.call import Warmed
from cachebus.cache.policy import ViewPolicy
from cachebus.cache.reads.conditional import unconditional
from cachebus.cache.view import View as AsyncView
from cachebus.freshness.clock import Clock
from cachebus.sync.portal import CallersLoad, Facade

P = ParamSpec("P")
R = TypeVar("R")


class View(Generic[P, R]):
    """A cached plain function. Call it like the function; made by `Cache.view`."""

    def __init__(self, facade: Facade, view: AsyncView[P, R], function: Callable[P, R]) -> None:
        self.view = view
        """The asynchronous view behind this one: what a worker warms and refreshes."""
        self.name = view.name
        self._facade = facade
        self._function = function
        self.__doc__ = function.__doc__
        self.__name__ = view.__name__
        self.__wrapped__ = function

    @property
    def policy(self) -> ViewPolicy:
        """How long its values live, and how. See `View.policy`."""
        return self.view.policy

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Return the value: from memory in this thread, otherwise through the loop thread; loads run in this thread."""
        held = self.view.held(args, kwargs) if not kwargs or RESERVED.isdisjoint(kwargs) else None
        if held is not None:
            return self.view.answer(held, args, kwargs)
        load = self.callers_load(*args, **kwargs)
        return load.run(self.view.read_with(load.load, args, kwargs))

    def load(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the function itself, uncached, in this thread."""
        with unconditional():
            return self._function(*args, **kwargs)

    def refresh(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Invalidate and load now; returns the new value. See `View.refresh`."""
        clock = self.invalidate(*args, **kwargs)
        load = self.callers_load(*args, **kwargs)
        return load.run(self.view.read_with(load.load, args, {**kwargs, "fresh_after": clock}))

    def warm(self, *args: P.args, **kwargs: P.kwargs) -> Warmed:
        """See to it that a valid entry with a good part of its TTL left exists. See `View.warm`."""
        load = self.callers_load(*args, **kwargs)
        return load.run(self.view.warm_with(load.load, args, kwargs))

    def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> Clock:
        """Make this entry unreadable everywhere. See `View.invalidate`."""
        return self._facade.run(self.view.invalidate(*args, **kwargs))

    def key(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """Return the logical key of this call."""
        return self.view.key(*args, **kwargs)

    def tags(self, *args: P.args, **kwargs: P.kwargs) -> list[str]:
        """Return the tags of this call that are known before the load."""
        return self.view.tags(*args, **kwargs)

    def encode_arguments(self, *args: P.args, **kwargs: P.kwargs) -> bytes:
        """Return the arguments as JSON, to be loaded by a worker. Raises: TypeError."""
        return self.view.encode_arguments(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<view {self.name!r}>"

    def callers_load(self, *args: P.args, **kwargs: P.kwargs) -> CallersLoad[R]:
        """Return a read of this call whose load runs in this thread. See `CallersLoad`."""
        return CallersLoad(self._facade, lambda: self._function(*args, **kwargs))
