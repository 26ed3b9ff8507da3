"""A tag that reaches no view is noticed at start, where it can be known."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cachebus import Cache
from cachebus.worker.unmatched_names import unmatched

cache = Cache.memory()


@cache.view("portfolio:{user_id}:summary", ttl="2m", tags=["user:{user_id}", "user:{user_id}:trades"])
async def summary(user_id: int) -> int:
    return user_id


@cache.view("market:{symbol}:{days}", ttl="1m", tags=["market"])
async def market(symbol: str, days: int) -> int:
    return days


class Invalidate:
    """Stands in for the effect: only its name and arguments are looked at."""

    def __init__(self, **named: Any) -> None:
        self.named = named


def reaches(user_id: int, symbol: str) -> Iterator[Invalidate]:
    yield Invalidate(tags=[f"user:{user_id}:trades", "market", f"user:{user_id}"])
    yield Invalidate(keys=[f"portfolio:{user_id}:summary", f"market:{symbol}:30"])
    yield Invalidate(prefix="market:")
    yield Invalidate(prefix=f"portfolio:{user_id}:")
    yield Invalidate(tags=(f"user:{user_id}",))


def computed(user_id: int) -> Iterator[Invalidate]:
    tag = "nothing:at:all".upper()
    yield Invalidate(tags=[tag], keys=[summary.key(user_id)])


def wrong_tag(user_id: int) -> Iterator[Invalidate]:
    yield Invalidate(tags=[f"users:{user_id}:trades"])


def wrong_prefix(user_id: int) -> Iterator[Invalidate]:
    yield Invalidate(prefix=f"portfolio:{user_id}:summary:")


def wrong_key(user_id: int) -> Iterator[Invalidate]:
    yield Invalidate(keys=[f"portfolio:{user_id}"])


@pytest.mark.parametrize("function", [reaches, computed])
def test_what_reaches_a_view_or_cannot_be_known_is_fine(function: Callable[..., Any]) -> None:
    """Literals that match a tag, key or prefix of a view are silent; so is what only running the code would tell."""
    assert list(unmatched([function], cache.views.values())) == []


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (wrong_tag, "tags 'users:{…}:trades' reaches no view"),
        (wrong_prefix, "prefix 'portfolio:{…}:summary:' reaches no view"),
        (wrong_key, "keys 'portfolio:{…}' reaches no view"),
    ],
)
def test_what_reaches_no_view_is_named(function: Callable[..., Any], said: str) -> None:
    """The warning names the handler and the literal as it is written."""
    (warning,) = unmatched([function], cache.views.values())
    assert warning == f"{function.__module__}.{function.__name__}: {said}"
