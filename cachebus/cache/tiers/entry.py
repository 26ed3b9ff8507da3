"""An entry as it lies in Redis: when it was born, how long it lives, what it belongs to, and the value. Pure.

    magic "C2" | era, 16 characters | born, 16 digits | end of life, 16 digits | header length, 2 bytes
    | header, MessagePack | payload

Era, birth and end stand at fixed places so that a script can compare them. The end is microseconds of the server's
time, written by the server itself: no process's wall clock takes part.
"""

from __future__ import annotations

import struct
import sys
from enum import IntEnum
from typing import NamedTuple

import msgspec

from cachebus.errors import NotCacheable
from cachebus.freshness.clock import Born

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MAGIC = b"C2"
ERA, BORN, LENGTH, HEADER = slice(2, 18), slice(18, 34), slice(50, 52), 52
_FIXED = struct.Struct(">2s16s16s16sH")
COMPRESS_FROM_BYTES = 1024
"""Below this zstd rarely pays for its CPU and header."""
WORTH_RATIO = 0.9
"""Compressed bytes are kept only when at least a tenth smaller."""
LARGEST_HEADER = 65_535
"""Bytes; tags are nearly all of it."""
LARGEST_BYTES = 8 * 1024 * 1024
"""The largest value stored, before and after decompression: a few bytes must not become gigabytes."""
FIRST_BYTES = 1024
"""So many hold the whole header of any but an entry with dozens of tags."""
ZSTD_LEVEL = 1
"""On 2 to 50 KB of MessagePack, level 3 is 1.5× slower for 3 % fewer bytes."""


class Encoding(IntEnum):
    """What was done to the payload."""

    RAW = 0
    ZSTD = 1


class Header(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What a reader needs beside the value. Times are milliseconds."""

    life_ms: int
    """Time to live of the key when it was written."""
    grace_ms: int
    """Of that, the last part in which the value is no longer fresh (stale windows)."""
    load_ms: float
    """How long the load took, for the early refresh."""
    tags: tuple[str, ...] = ()
    encoding: int = Encoding.RAW
    validator: str = ""
    """What its source tells versions of the value apart by, for a conditional load."""
    purpose: str = ""
    """What it was loaded for, for people who look: `refresh`, `warm`; '' for a caller who waited, or what was set."""


class Entry(msgspec.Struct, frozen=True, gc=False):
    """A stored value, unpacked."""

    born: Born
    ends: int
    """When its key ends, microseconds of the server's time; 0 until the server has stored it."""
    header: Header
    payload: bytes


class Stub(NamedTuple):
    """What the first bytes of an entry tell."""

    born: Born
    header: Header


_born = Born._make
_encode_header = msgspec.msgpack.Encoder().encode
_decode_header = msgspec.msgpack.Decoder(Header).decode


def stamp(born: Born) -> bytes:
    """Return era and birth as scripts compare them: 16 characters, 16 digits."""
    return b"%16b%016d" % (born.era.encode(), born.number)


def pack(payload: bytes, born: Born, header: Header, what: str) -> bytes:
    """Return the bytes of an entry, compressed where it pays. Raises: NotCacheable when value or tags are too large."""
    if len(payload) > LARGEST_BYTES:
        raise NotCacheable(f"{what}: the value has {len(payload):,} bytes, the most stored is {LARGEST_BYTES:,}")
    if (compressed := smaller(payload)) is not None:
        payload, header = compressed, msgspec.structs.replace(header, encoding=Encoding.ZSTD)
    encoded = _encode_header(header)
    if len(encoded) > LARGEST_HEADER:
        raise NotCacheable(
            f"{what}: its {len(header.tags):,} tags have {len(encoded):,} bytes together, the most stored is "
            f"{LARGEST_HEADER:,}; tag it with fewer and wider names"
        )
    return b"%b%b%016d%b%b%b" % (MAGIC, stamp(born), 0, len(encoded).to_bytes(2), encoded, payload)


def unpack(data: bytes) -> Entry | None:
    """Return the entry, or None for bytes that are not one: another version, cut, damaged. Never raises."""
    if len(data) < HEADER:
        return None
    magic, era, birth, end, length = _FIXED.unpack_from(data)
    if magic != MAGIC:
        return None
    try:
        born, ends, after = _born((int(birth), era.decode("ascii"))), int(end), HEADER + length
        header = _decode_header(data[HEADER:after])
        payload = data[after:]
        if header.encoding:
            payload = inflated(payload, header.encoding)
    except (ValueError, OverflowError, RecursionError, msgspec.DecodeError, zstd.ZstdError):
        return None
    if header.life_ms < 1 or not 0 <= header.grace_ms <= header.life_ms:
        return None
    return Entry(born, ends, header, payload)


def stub(first_bytes: bytes) -> Stub | None:
    """Return birth and header, or None for what is no entry, or one whose header is longer. Never raises."""
    if first_bytes[:2] != MAGIC or len(first_bytes) < HEADER:
        return None
    try:
        after = HEADER + int.from_bytes(first_bytes[LENGTH])
        return Stub(
            Born(int(first_bytes[BORN]), first_bytes[ERA].decode("ascii")), _decode_header(first_bytes[HEADER:after])
        )
    except (ValueError, OverflowError, RecursionError, msgspec.DecodeError):
        return None


def smaller(payload: bytes) -> bytes | None:
    """Return *payload* compressed, or None where that does not pay."""
    if len(payload) < COMPRESS_FROM_BYTES:
        return None
    compressed = zstd.compress(payload, ZSTD_LEVEL)
    return compressed if len(compressed) <= len(payload) * WORTH_RATIO else None


def inflated(frame: bytes, encoding: int) -> bytes:
    """Return the decompressed payload. Raises: ValueError past LARGEST_BYTES or when it is cut short; ZstdError."""
    if encoding != Encoding.ZSTD:
        raise ValueError(f"the payload is encoded in a way that is not known: {encoding}")
    decompressor = zstd.ZstdDecompressor()
    data = decompressor.decompress(frame, max_length=LARGEST_BYTES + 1)
    if not decompressor.eof or len(data) > LARGEST_BYTES:
        raise ValueError("the payload is damaged or larger than any we store")
    return data
