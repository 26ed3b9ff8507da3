"""Damaged entries: a miss or a value of the declared type, never an error. `FUZZ_ENTRIES=100000` is the full count."""

from __future__ import annotations

import os
import random
import struct
from collections.abc import Callable

import msgspec

from cachebus.cache.tiers.entry import (
    COMPRESS_FROM_BYTES,
    HEADER,
    LARGEST_BYTES,
    MAGIC,
    Entry,
    Header,
    pack,
    stub,
    unpack,
)
from cachebus.cache.values.codec import Codec
from cachebus.cache.values.extensions import SelfDescribing
from cachebus.cache.values.never import NeverCached
from cachebus.freshness.clock import Born

ERA = "0123456789abcdef"
ENTRIES = int(os.environ.get("FUZZ_ENTRIES", "10000"))


class Position(msgspec.Struct):
    symbol: str
    quantity: int
    prices: list[float]
    note: str | None = None


CODEC = Codec(list[Position], "fuzz", NeverCached(), SelfDescribing())


def whole(choose: random.Random) -> bytes:
    """Return an entry as it should be, small or compressed, with few tags or many."""
    value = [
        Position(choose.choice("ABC") * 3, choose.randrange(10_000), [choose.random()] * choose.randrange(9))
        for _ in range(choose.choice((0, 1, 3, 60)))
    ]
    header = Header(choose.randrange(1, 10**9), 0, choose.random(), ("user:7",) * choose.randrange(40))
    return pack(CODEC.settle(value)[1], Born(choose.randrange(10**16), ERA), header, "fuzz")


def flipped(data: bytes, choose: random.Random) -> bytes:
    """Change a few bits."""
    changed = bytearray(data)
    for _ in range(choose.randint(1, 8)):
        changed[choose.randrange(len(changed))] ^= 1 << choose.randrange(8)
    return bytes(changed)


def cut(data: bytes, choose: random.Random) -> bytes:
    """Lose the end, the beginning, or something between."""
    at, to = sorted((choose.randrange(len(data)), choose.randrange(len(data))))
    return choose.choice((data[:at], data[to:], data[:at] + data[to:]))


def longer(data: bytes, choose: random.Random) -> bytes:
    """Bring more than there was."""
    at = choose.randrange(len(data))
    return data[:at] + choose.randbytes(choose.randrange(1, 2000)) + data[at:]


def of_another_version(data: bytes, choose: random.Random) -> bytes:
    """Have a header of other fields, as a later version of the library may write it."""
    after = HEADER + int.from_bytes(data[34:36])
    fields = [choose.choice((None, 0, -1, 1e300, 2**63, "x", [], {"a": 1}, 2)) for _ in range(choose.randrange(9))]
    header = msgspec.msgpack.encode(choose.choice((fields, {"v": fields}, fields and fields[0])))
    return data[:34] + struct.pack(">H", len(header)) + header + data[after:]


def junk(_data: bytes, choose: random.Random) -> bytes:
    """Be anything, perhaps under our name."""
    return choose.choice((b"", MAGIC, MAGIC + b"0" * 32)) + choose.randbytes(choose.randrange(100))


DAMAGES: tuple[Callable[[bytes, random.Random], bytes], ...] = (flipped, cut, longer, of_another_version, junk)


def test_a_damaged_entry_is_a_miss_or_a_value_of_its_type() -> None:
    """Whatever happened to the bytes: no error, no other type, nothing too large; whole ones come back as they were."""
    choose = random.Random(27)  # noqa: S311 - garbage that can be had again
    misses = 0
    for number in range(ENTRIES):
        data = whole(choose)
        entry = unpack(data)
        assert entry is not None
        damaged = DAMAGES[number % len(DAMAGES)](data, choose)
        read = stub(damaged)
        assert read is None or isinstance(read.header, Header)
        found = unpack(damaged)
        misses += found is None or not serves(found)
    assert misses > ENTRIES / 4, "the damage was none"


def serves(entry: Entry) -> bool:
    """Return whether a reader would take it; what it takes is of the type."""
    assert len(entry.payload) <= LARGEST_BYTES
    assert 0 <= entry.header.grace_ms <= entry.header.life_ms
    try:
        value = CODEC.decode(entry.payload)
    except msgspec.DecodeError:
        return False
    assert all(isinstance(position, Position) and isinstance(position.quantity, int) for position in value)
    return True


def test_a_compressed_entry_that_is_damaged_does_not_grow() -> None:
    """What claims to be compressed is inflated no further than the largest value stored."""
    data = pack(b"\x00" * (COMPRESS_FROM_BYTES * 1000), Born(1, ERA), Header(1000, 0, 1.0), "fuzz")
    assert len(data) < 1000
    choose = random.Random(3)  # noqa: S311 - the same
    for _ in range(2000):
        found = unpack(flipped(data, choose))
        assert found is None or len(found.payload) <= LARGEST_BYTES


def test_an_encoding_of_a_later_version_is_a_miss() -> None:
    """Not an error, and not the bytes as they are; a later version may add one without a flag day."""
    data = pack(b"\x01", Born(1, ERA), Header(1000, 0, 1.0, encoding=7), "fuzz")
    assert unpack(data) is None
    assert unpack(pack(b"\x01", Born(1, ERA), Header(1000, 0, 1.0), "fuzz")) is not None
