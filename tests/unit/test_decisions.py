"""The pure parts: keys and scopes, ages, durations, entries, memory."""

from __future__ import annotations

import datetime
import math
import random
from collections import OrderedDict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachebus import Cache
from cachebus.cache.policy import Age, ViewPolicy
from cachebus.cache.tiers.entry import COMPRESS_FROM_BYTES, Header, pack, unpack
from cachebus.cache.tiers.s3fifo import S3Fifo
from cachebus.cache.values.extensions import SelfDescribing
from cachebus.cache.values.never import NeverCached
from cachebus.cache.values.plain_codec import PlainCodec
from cachebus.durations import milliseconds
from cachebus.errors import ConfigurationError, NotCacheable
from cachebus.freshness.clock import Born
from cachebus.freshness.scopes import glob_scope, prefix_scope, scopes_of, scopes_to_invalidate
from cachebus.templates import Template, escape, plain, stored_name, without_controls
from tests.support.memory_tier import hits_of_memory, value_in_memory

HEADER = Header(60_000, 0, 1.5, ("user:7",))


@given(st.text(), st.text())
def test_no_parameter_can_reach_another_word_of_a_key(one: str, other: str) -> None:
    """Whatever a parameter holds, it is one word: no ':' of its own, and different values never meet."""
    assert ":" not in escape(one)
    assert "{" not in escape(one)
    assert (escape(one) == escape(other)) == (one == other)


def test_a_key_belongs_to_itself_its_prefixes_its_tags_and_everything() -> None:
    """Those are its scopes, and no others."""
    assert scopes_of("a:b:c", ["t"]) == ("k:a:b:c", "p:a:", "p:a:b:", "t:t", "*")


@pytest.mark.parametrize(
    ("pattern", "scope"),
    [
        ("market:*", "p:market:"),
        ("user:*:trades", "p:user:"),
        ("*", "*"),
        ("*:x", "*"),
        ("a:b", "k:a:b"),
        ("us?r:1", "*"),
    ],
)
def test_a_glob_is_widened_never_narrowed(pattern: str, scope: str) -> None:
    """To the longest literal prefix that ends where a word ends."""
    assert glob_scope(pattern) == scope


@pytest.mark.parametrize("prefix", ["mark", "portfolio:7", "a:\n"])
def test_a_prefix_that_ends_within_a_word_is_refused(prefix: str) -> None:
    """It would match nothing, in silence."""
    with pytest.raises(ConfigurationError, match="prefix"):
        prefix_scope(prefix)


def test_an_empty_tag_is_refused() -> None:
    """By name."""
    with pytest.raises(ConfigurationError, match="tag"):
        scopes_to_invalidate(tags=[""])


def test_tags_are_formatted_as_an_f_string_would() -> None:
    """A handler's f-string and a view's template mean the same tag, whatever the parameter holds."""
    template = Template("user:{name}", ["name"], what="tag", word=plain)
    assert template.format({"name": "a:b c"}) == "user:a:b c"


WORDS = st.lists(st.sampled_from(["user", "{who}", "{day}", "a:b", "{who}.{day}", "it's"]), min_size=1, max_size=5)


@given(WORDS, WORDS, st.text(max_size=20) | st.integers(), st.dates() | st.none())
def test_a_view_compiles_what_its_key_and_tags_say(words: list[str], tag: list[str], who: object, day: object) -> None:
    """Scopes are written out for the template once; they are those of the key that comes of it."""
    cache = Cache("redis://localhost")  # connects to nothing

    @cache.view(":".join(words), ttl="1m", tags=["-".join(tag)], not_in_key=["who", "day"])
    async def view(who: object, day: object = None) -> int:
        return 1

    call = view._call((who,), {"day": day})
    assert call.tags == (without_controls("-".join(tag).format(who=who, day=day)),)
    assert call.scopes == scopes_of(view.key(who, day), call.tags)


@given(st.text(min_size=1, max_size=600))
def test_stored_names_are_short_and_never_break_a_hash_tag(key: str) -> None:
    """Long keys and braces become a digest; equal keys stay equal."""
    name = stored_name(key)
    assert len(name) <= 200
    assert "{" not in name
    assert "}" not in name
    assert name == stored_name(key)


@pytest.mark.parametrize(
    ("written", "ms"),
    [
        ("90s", 90_000),
        ("1h30m", 5_400_000),
        (2, 2000),
        (0.5, 500),
        ("250ms", 250),
        (datetime.timedelta(minutes=1), 60_000),
    ],
)
def test_durations_as_people_write_them(written: object, ms: int) -> None:
    """All forms become milliseconds."""
    assert milliseconds(written, "ttl") == ms  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "written",
    ["", "5", "5x", "-5s", 0, -1, float("nan"), float("inf"), True, "1h and a bit", 1e99, 10**40, "9" * 400 + "d"],
)
def test_a_duration_that_is_none_is_refused_by_field(written: object) -> None:
    """The field is named."""
    with pytest.raises(ConfigurationError, match="ttl"):
        milliseconds(written, "ttl")  # type: ignore[arg-type]


def test_the_age_of_an_entry_follows_its_windows() -> None:
    """Fresh, stale, for errors only, dead."""
    rules = ViewPolicy.of("v", ttl="10s", stale="5s", stale_if_error="20s")
    assert rules.age(1000, 0, 0.5) is Age.FRESH
    assert rules.age(-1000, 0, 0.5) is Age.STALE
    assert rules.age(-6000, 0, 0.5) is Age.ERROR_ONLY
    assert rules.age(-21_000, 0, 0.5) is Age.DEAD
    assert rules.grace_ms == 20_000


def test_early_renewal_follows_its_distribution() -> None:
    """XFetch: with time t left and a load of d, a share exp(-t/d) of readers renews."""
    rules, draw = ViewPolicy.of("v", ttl="10s"), random.Random(3)  # noqa: S311 - a draw that can be had again
    for left_ms, load_ms in ((100, 100), (300, 100), (50, 200)):
        early = sum(rules.age(left_ms, load_ms, 1 - draw.random()) is Age.EARLY for _ in range(20_000)) / 20_000
        assert early == pytest.approx(math.exp(-left_ms / load_ms), abs=0.015)


@given(st.binary(max_size=200))
def test_no_bytes_break_the_reader_of_entries(junk: bytes) -> None:
    """Anything is an entry or none; never an error."""
    unpack(junk)
    unpack(b"C2" + junk)
    unpack(b"C2" + b"1" * 48 + junk)


@given(st.binary(max_size=5000), st.integers(0, 10**15))
def test_an_entry_comes_back_as_it_was(payload: bytes, born: int) -> None:
    """Compressed or not."""
    when = Born(born, "0123456789abcdef")
    entry = unpack(pack(payload, when, HEADER, "v"))
    assert entry is not None
    assert (entry.born, entry.payload, entry.header.tags) == (when, payload, ("user:7",))


def test_large_values_are_compressed_only_where_it_pays() -> None:
    """Repetition shrinks, noise stays as it is."""
    again, noise = b"abc" * COMPRESS_FROM_BYTES, random.Random(1).randbytes(COMPRESS_FROM_BYTES * 2)  # noqa: S311 - a draw that can be had again
    assert len(pack(again, Born(1, ""), HEADER, "v")) < len(again) / 10
    assert len(pack(noise, Born(1, ""), HEADER, "v")) < len(noise) + 100


def test_a_bomb_is_no_entry() -> None:
    """A few bytes that would become too many are a miss."""
    with pytest.raises(NotCacheable, match="bytes"):
        pack(b"x" * (9 * 1024 * 1024), Born(1, ""), HEADER, "v")


def test_what_must_not_be_cached_is_refused_at_any_depth() -> None:
    """In plain data, however deep."""
    codec = PlainCodec(Any, "cache.set", NeverCached(), SelfDescribing())
    with pytest.raises(NotCacheable, match="api_key"):
        codec.encode({"users": [{"profile": {"api_key": "x"}}]})


def _hits_of_lru(trace: list[str], most: int) -> int:
    kept, hits = OrderedDict[str, None](), 0
    for key in trace:
        if key in kept:
            hits += 1
            kept.move_to_end(key)
        else:
            kept[key] = None
            if len(kept) > most:
                kept.popitem(last=False)
    return hits


@pytest.mark.parametrize("scan_every", [0, 500])
def test_memory_answers_more_than_lru_would(scan_every: int) -> None:
    """On a skewed trace, and much more so when something scans through it."""
    draw = random.Random(5)  # noqa: S311 - a draw that can be had again
    weights = [1 / (rank + 1) for rank in range(5000)]
    trace: list[str] = []
    for number, key in enumerate(draw.choices(range(5000), weights, k=30_000)):
        trace.append(f"k{key}")
        if scan_every and number % scan_every == 0:
            trace += [f"scan{number}:{n}" for n in range(300)]
    assert hits_of_memory(trace, 300) > _hits_of_lru(trace, 300)


def _asked_for_twice_late(keys: int) -> list[str]:
    trace: list[tuple[float, str]] = []
    draw = random.Random(5)  # noqa: S311 - a draw that can be had again
    for number in range(keys):
        trace += [(number, f"k{number}"), (number + draw.uniform(50, 400), f"k{number}")]
    return [key for _, key in sorted(trace)]


def _hot_sets(reads: int) -> list[str]:
    draw = random.Random(5)  # noqa: S311 - a draw that can be had again
    return [f"{at // 1500}:{draw.randrange(240)}" if draw.random() < 0.9 else f"cold{at}" for at in range(reads)]


def test_memory_learns_how_long_newcomers_must_wait_for_a_second_read() -> None:
    """Keys whose second read comes late are kept for it, and a new hot set is let in, about as LRU does it."""
    late, moving = _asked_for_twice_late(10_000), _hot_sets(20_000)
    assert hits_of_memory(late, 300) > _hits_of_lru(late, 300)
    assert hits_of_memory(moving, 300) > 0.9 * _hits_of_lru(moving, 300)


def test_memory_is_bounded_by_bytes_too() -> None:
    """The largest values make the most room."""
    memory = S3Fifo(1000, most_bytes=1000)
    for number in range(100):
        memory.put(str(number), value_in_memory(), 100)
        assert memory.bytes <= 1000
    memory.put("too large", value_in_memory(), 2000)
    assert "too large" not in memory.held
    memory.clear()
    assert (len(memory), memory.bytes) == (0, 0)
