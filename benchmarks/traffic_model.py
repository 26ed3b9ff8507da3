"""Traffic that is made up, to replay without a server: who reads what when, and what is changed. Seeded; no clock.

`trading`: an application like TradeSense. 40 % of its users come each weekday at 9:06 ± 8 min and look at the same
pages in nearly the same order, 25 % roam, 25 % come once in a week or two, 10 % look in all day. Symbols are
Zipf-distributed; in 15 % of the sessions the user trades, which makes the user's figures old. `shop` is a second
application, of another kind, that nothing is tuned for. `shuffled` takes the habits out of either: the same reads, by
anybody. `python -m benchmarks.traffic_model trading --users 400 --days 28` writes one as lines of JSON.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

HOUR_S = 3600.0
DAY_S = 24 * HOUR_S
WEEKDAYS = range(5)
SYMBOLS = 200
PRODUCTS = 5_000


class ModelView(NamedTuple):
    """A view of the modelled application. Load times are lognormal: a median, and one in forty at twice that."""

    name: str
    ttl_s: float
    load_ms: float
    size: int
    """Bytes of a value."""
    tags: tuple[str, ...] = ()
    identity: str | None = "user_id"

    def key(self, args: tuple[object, ...]) -> str:
        """Return the key of a call with *args*, in the order of the template's parameters."""
        return _filled(self.name, dict(zip(_fields(self.name), args, strict=True)))

    def tags_of(self, args: tuple[object, ...]) -> tuple[str, ...]:
        """Return the tags of that call."""
        named = dict(zip(_fields(self.name), args, strict=True))
        return tuple(_filled(tag, named) for tag in self.tags)

    def load_time_ms(self, draw: random.Random) -> float:
        """Return how long one load takes."""
        return self.load_ms * math.exp(draw.gauss(0, 0.35))


class ModelRead(NamedTuple):
    """A read by a user; *at* in seconds from a Monday, midnight."""

    at: float
    user: int
    view: str
    args: tuple[object, ...]


class ModelChange(NamedTuple):
    """A change that invalidates tags; *user*: whose it is, None for nobody's."""

    at: float
    user: int | None
    tags: tuple[str, ...]


Traffic = Iterator[ModelRead | ModelChange]

OF_USER = ("user:{user_id}", "user:{user_id}:trades")
TRADING = {
    view.name: view
    for view in (
        ModelView("settings:{user_id}", 600, 15, 200, ("user:{user_id}", "user:{user_id}:settings")),
        ModelView("portfolio:{user_id}:summary", 300, 350, 4_000, (*OF_USER, "market")),
        ModelView("analytics:{user_id}:trades", 300, 900, 9_000, OF_USER),
        ModelView("analytics:{user_id}:risk", 300, 600, 3_000, (*OF_USER, "market")),
        ModelView("journal:{user_id}", 300, 120, 12_000, OF_USER),
        ModelView("position:{user_id}:{symbol}", 300, 80, 1_500, (*OF_USER, "market:{symbol}")),
        ModelView("market:{symbol}:daily", 60, 60, 6_000, ("market:{symbol}",), None),
    )
}
"""What `trading` reads."""
SHOP = {
    view.name: view
    for view in (
        ModelView("product:{product_id}", 900, 45, 3_000, ("product:{product_id}",), None),
        ModelView("cart:{user_id}", 600, 60, 800, ("cart:{user_id}",)),
        ModelView("recommended:{user_id}", 1800, 450, 5_000, ("orders:{user_id}",)),
        ModelView("orders:{user_id}", 600, 180, 4_000, ("orders:{user_id}",)),
        ModelView("price:{user_id}:{product_id}", 300, 90, 300, ("cart:{user_id}", "product:{product_id}")),
    )
}
"""What `shop` reads."""

ORDINARY = ("portfolio", "analytics", "position", "risk", "journal")
"""Pages, in the order in which most people go through them."""

PAGE_VIEWS = {
    "analytics": "analytics:{user_id}:trades",
    "risk": "analytics:{user_id}:risk",
    "journal": "journal:{user_id}",
}


@dataclass(frozen=True, slots=True)
class Shape:
    """How much traffic, and of what kind."""

    users: int = 400
    days: int = 28
    seed: int = 1
    flip_day: int | None = None
    """From this day on users look at the pages they hardly looked at before, and no longer at those they did."""
    trading_sessions: float = 0.15
    """Share of the sessions in which the user changes something."""


class _User:
    """One user's habits."""

    def __init__(self, number: int, draw: random.Random) -> None:
        self.number = number
        self.kind = draw.choices(("regular", "roamer", "rare", "all day"), (40, 25, 25, 10))[0]
        self.usual_at_s = 9 * HOUR_S + 6 * 60 + draw.gauss(0, 15 * 60) * (self.kind != "regular")
        order = list(ORDINARY)
        if self.kind == "roamer":
            draw.shuffle(order)
        self.order = order
        favourites = set(
            draw.sample(ORDINARY, 3) if self.kind == "roamer" else ("portfolio", *draw.sample(order[1:], 2))
        )
        steady = {"regular": 0.92, "all day": 0.85, "rare": 0.8, "roamer": 0.6}[self.kind]
        self.likely = {page: steady if page in favourites else 0.08 for page in order}
        count = draw.randint(2, 7)
        self.symbols = [_zipf(draw, SYMBOLS) for _ in range(count)]

    def flipped(self) -> None:
        """Change what the user looks at."""
        most, least = max(self.likely.values()), min(self.likely.values())
        self.likely = {page: least if likely > 0.5 else most for page, likely in self.likely.items()}

    def sessions(self, day: int, draw: random.Random) -> list[float]:
        """Return when the user comes on a day, seconds from midnight."""
        weekday = day % 7 in WEEKDAYS
        if self.kind == "regular":
            first = [self.usual_at_s + draw.gauss(0, 8 * 60)] if weekday and draw.random() < 0.93 else []
            return first + ([draw.uniform(13, 18) * HOUR_S] if weekday and draw.random() < 0.25 else [])
        if self.kind == "roamer":
            return [draw.uniform(7, 23) * HOUR_S] if draw.random() < 0.55 else []
        if self.kind == "rare":
            return [draw.uniform(8, 22) * HOUR_S] if draw.random() < 0.1 else []
        return sorted(draw.uniform(8.5, 18) * HOUR_S for _ in range(draw.randint(3, 7))) if weekday else []


def trading(shape: Shape = Shape()) -> Traffic:
    """Yield reads and changes of a trading application, in the order of time."""
    draw = random.Random(shape.seed)  # noqa: S311 - the same traffic every time
    users = [_User(number, draw) for number in range(1, shape.users + 1)]
    later: list[ModelRead | ModelChange] = []
    for day in range(shape.days):
        if day == shape.flip_day:
            for user in users:
                user.flipped()
        records = later
        for user in users:
            for at in user.sessions(day, draw):
                records += _trading_session(user, day * DAY_S + at, shape, draw)
        if day % 7 in WEEKDAYS:
            records.append(ModelChange(day * DAY_S + 18.5 * HOUR_S, None, ("market",)))
        of_today, later = _until_midnight(records, day)
        yield from of_today


def shop(shape: Shape = Shape()) -> Traffic:
    """Yield reads and changes of a shop: few habits, many products, a cart that is read after each of its changes."""
    draw = random.Random(shape.seed + 1_000)  # noqa: S311 - the same traffic every time
    later: list[ModelRead | ModelChange] = []
    for day in range(shape.days):
        records = later
        for user in range(1, shape.users + 1):
            if draw.random() < 0.3:
                records += _shop_session(user, day * DAY_S + draw.triangular(7, 24, 20) * HOUR_S, shape, draw)
        of_today, later = _until_midnight(records, day)
        yield from of_today


def shuffled(traffic: Iterable[ModelRead | ModelChange], users: int, seed: int = 1) -> Traffic:
    """Yield the same traffic with each read by anybody: what follows what says nothing any more."""
    draw = random.Random(seed)  # noqa: S311 - the same traffic every time
    for record in traffic:
        if isinstance(record, ModelRead) and record.args[0] == record.user:
            anybody = draw.randint(1, users)
            yield record._replace(user=anybody, args=(anybody, *record.args[1:]))
        else:
            yield record


def _trading_session(user: _User, at: float, shape: Shape, draw: random.Random) -> Iterator[ModelRead | ModelChange]:
    pages = [page for page in user.order if draw.random() < user.likely[page]] or ["portfolio"]
    if user.kind == "roamer":
        draw.shuffle(pages)
    trades_after = draw.randrange(len(pages)) if draw.random() < shape.trading_sessions else None
    for step, page in enumerate(pages):
        for name, args in _trading_page(page, user, draw):
            yield ModelRead(at, user.number, name, args)
            at += draw.uniform(0.02, 0.4)
        at += draw.lognormvariate(math.log(25), 0.9)
        if step == trades_after:
            yield ModelChange(at, user.number, (f"user:{user.number}:trades",))
            at += draw.uniform(0.5, 4)
            if draw.random() < 0.75:
                yield ModelRead(at, user.number, "portfolio:{user_id}:summary", (user.number,))
                at += draw.lognormvariate(math.log(20), 0.8)


def _trading_page(page: str, user: _User, draw: random.Random) -> Iterator[tuple[str, tuple[object, ...]]]:
    number = user.number
    yield "settings:{user_id}", (number,)
    if page == "position":
        for _ in range(draw.randint(1, 3)):
            symbol = user.symbols[min(int(draw.expovariate(0.8)), len(user.symbols) - 1)]
            yield "position:{user_id}:{symbol}", (number, symbol)
            yield "market:{symbol}:daily", (symbol,)
    elif page == "portfolio":
        yield "portfolio:{user_id}:summary", (number,)
        for symbol in user.symbols[:3]:
            yield "market:{symbol}:daily", (symbol,)
    else:
        yield PAGE_VIEWS[page], (number,)


def _shop_session(user: int, at: float, shape: Shape, draw: random.Random) -> Iterator[ModelRead | ModelChange]:
    yield ModelRead(at, user, "cart:{user_id}", (user,))
    at += draw.uniform(0.05, 0.5)
    if draw.random() < 0.7:
        yield ModelRead(at, user, "recommended:{user_id}", (user,))
    for _ in range(1 + int(draw.expovariate(0.3))):
        at += draw.lognormvariate(math.log(20), 1.0)
        product = int(_zipf(draw, PRODUCTS)[1:])
        yield ModelRead(at, user, "product:{product_id}", (product,))
        yield ModelRead(at + 0.1, user, "price:{user_id}:{product_id}", (user, product))
        if draw.random() < shape.trading_sessions:
            at += draw.uniform(2, 30)
            yield ModelChange(at, user, (f"cart:{user}",))
            at += draw.uniform(0.2, 2)
            yield ModelRead(at, user, "cart:{user_id}", (user,))
    if draw.random() < 0.2:
        at += draw.lognormvariate(math.log(30), 0.7)
        yield ModelRead(at, user, "orders:{user_id}", (user,))
        if draw.random() < 0.5:
            yield ModelChange(at + 20, user, (f"cart:{user}", f"orders:{user}"))
            yield ModelRead(at + 22, user, "orders:{user_id}", (user,))


def _until_midnight(
    records: list[ModelRead | ModelChange], day: int
) -> tuple[list[ModelRead | ModelChange], list[ModelRead | ModelChange]]:
    """Return what is of this day, in the order of time, and what its sessions leave for the next."""
    records.sort(key=lambda record: record.at)
    return [r for r in records if r.at < (day + 1) * DAY_S], [r for r in records if r.at >= (day + 1) * DAY_S]


def _zipf(draw: random.Random, size: int) -> str:
    """Return a name whose rank is Zipf-distributed, with exponent 1."""
    return f"S{int(math.exp(draw.random() * math.log(size))):04d}"


def _fields(template: str) -> list[str]:
    return [part.partition("}")[0] for part in template.split("{")[1:]]


def _filled(template: str, named: dict[str, object]) -> str:
    for name, value in named.items():
        template = template.replace(f"{{{name}}}", str(value))
    return template


SOURCES = {"trading": (trading, TRADING), "shop": (shop, SHOP)}


def main(arguments: list[str] | None = None) -> None:
    """Write traffic as lines of JSON: [at, user, view, args], or [at, user, tags] for a change."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.traffic_model", description=__doc__)
    parser.add_argument("source", choices=SOURCES)
    parser.add_argument("--users", type=int, default=Shape().users)
    parser.add_argument("--days", type=int, default=Shape().days)
    parser.add_argument("--seed", type=int, default=Shape().seed)
    given = parser.parse_args(arguments)
    traffic, _ = SOURCES[given.source]
    for record in traffic(replace(Shape(), users=given.users, days=given.days, seed=given.seed)):
        sys.stdout.write(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
