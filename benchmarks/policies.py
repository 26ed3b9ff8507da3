"""Other ways to decide what memory keeps, over keys alone: what `benchmarks.memory` sets beside ours.

Each has `ask(key)`: whether the key is held; it is, afterwards. Written after the papers: for hit ratios, not speed.
"""

from __future__ import annotations

from collections import OrderedDict


class Lru:
    """The textbook: what was asked for longest ago goes."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: OrderedDict[str, None] = OrderedDict()

    def ask(self, key: str) -> bool:
        """Ask for a key."""
        if key in self._kept:
            self._kept.move_to_end(key)
            return True
        self._kept[key] = None
        if len(self._kept) > self._most:
            self._kept.popitem(last=False)
        return False


class FixedS3Fifo:
    """S3-FIFO as its paper has it: a small queue of a tenth. Source: Yang et al., SOSP 2023."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._hits: dict[str, int] = {}
        self._small: OrderedDict[str, None] = OrderedDict()
        self._main: OrderedDict[str, None] = OrderedDict()
        self._ghosts: OrderedDict[str, None] = OrderedDict()

    def ask(self, key: str) -> bool:
        """Ask for a key."""
        if key in self._hits:
            self._hits[key] = min(3, self._hits[key] + 1)
            return True
        returned = self._ghosts.pop(key, self) is None
        (self._main if returned else self._small)[key] = None
        self._hits[key] = 0
        while len(self._hits) > self._most:
            self._evict()
        return False

    def _evict(self) -> None:
        if self._small and (len(self._small) > self._most // 10 or not self._main):
            key, _ = self._small.popitem(last=False)
            if self._hits[key]:
                self._hits[key], self._main[key] = 0, None
                return
            self._ghosts[key] = None
            if len(self._ghosts) > self._most:
                self._ghosts.popitem(last=False)
        else:
            key, _ = self._main.popitem(last=False)
            if self._hits[key]:
                self._hits[key] -= 1
                self._main[key] = None
                return
        del self._hits[key]


class Sieve:
    """One queue and a hand that spares, once, what was asked for. Source: Zhang et al., NSDI 2024."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._asked: dict[str, bool] = {}
        self._older: dict[str, str | None] = {}
        self._newer: dict[str, str | None] = {}
        self._newest: str | None = None
        self._oldest: str | None = None
        self._hand: str | None = None

    def ask(self, key: str) -> bool:
        """Ask for a key."""
        if key in self._asked:
            self._asked[key] = True
            return True
        if len(self._asked) >= self._most:
            self._evict()
        self._asked[key], self._older[key], self._newer[key] = False, self._newest, None
        if self._newest is not None:
            self._newer[self._newest] = key
        self._newest = key
        self._oldest = self._oldest or key
        return False

    def _evict(self) -> None:
        key = self._hand or self._oldest
        assert key is not None
        while self._asked[key]:
            self._asked[key] = False
            key = self._newer[key] or self._oldest
            assert key is not None
        del self._asked[key]
        newer, older = self._newer.pop(key), self._older.pop(key)
        self._hand = newer
        if newer is None:
            self._newest = older
        else:
            self._older[newer] = older
        if older is None:
            self._oldest = newer
        else:
            self._newer[older] = newer


class Arc:
    """Two LRU lists whose sizes are learnt from returning keys. Source: Megiddo and Modha, FAST 2003."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._wanted = 0.0
        self._once: OrderedDict[str, None] = OrderedDict()
        self._often: OrderedDict[str, None] = OrderedDict()
        self._once_ghosts: OrderedDict[str, None] = OrderedDict()
        self._often_ghosts: OrderedDict[str, None] = OrderedDict()

    def ask(self, key: str) -> bool:
        """Ask for a key."""
        if key in self._once or key in self._often:
            self._once.pop(key, None)
            self._often[key] = None
            self._often.move_to_end(key)
            return True
        once, often = len(self._once_ghosts), len(self._often_ghosts)
        if key in self._once_ghosts:
            self._wanted = min(self._most, self._wanted + max(1, often / once))
            self._evict(favour_once=False)
            del self._once_ghosts[key]
            self._often[key] = None
        elif key in self._often_ghosts:
            self._wanted = max(0, self._wanted - max(1, once / often))
            self._evict(favour_once=True)
            del self._often_ghosts[key]
            self._often[key] = None
        else:
            self._make_room()
            self._once[key] = None
        return False

    def _make_room(self) -> None:
        seen_once = len(self._once) + len(self._once_ghosts)
        held = len(self._once) + len(self._often)
        if seen_once == self._most:
            if len(self._once) == self._most:
                self._once.popitem(last=False)
                return
            self._once_ghosts.popitem(last=False)
            self._evict(favour_once=False)
        elif held + len(self._once_ghosts) + len(self._often_ghosts) >= self._most:
            if held + len(self._once_ghosts) + len(self._often_ghosts) >= 2 * self._most:
                self._often_ghosts.popitem(last=False)
            if held >= self._most:
                self._evict(favour_once=False)

    def _evict(self, *, favour_once: bool) -> None:
        long = len(self._once) > self._wanted or (favour_once and len(self._once) == int(self._wanted))
        if self._once and (long or not self._often):
            self._once_ghosts[self._once.popitem(last=False)[0]] = None
        else:
            self._often_ghosts[self._often.popitem(last=False)[0]] = None
