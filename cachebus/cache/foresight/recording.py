"""The form of a recording: what is asked of the processes, what each of them sends, and the file that keeps it. Pure.

A recording holds templates of views and tags, and hashes: of keys (32 bits), identities (24 bits), scopes (32 bits) and
values (32 bits), all under a random secret that lies in Redis as long as the recording runs. They hide keys from
whoever cannot enumerate them, and nothing more is claimed. No key, argument or identity leaves the process.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from typing import Annotated, NamedTuple

import msgspec

from cachebus.errors import ConfigurationError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

FORMAT = 1
MAGIC = b"CBREC"
"""What a file begins with; the number of the format and a line feed follow."""
LARGEST_CHUNK = 8 * 1024 * 1024
"""Of a chunk, unpacked: a few bytes must not become gigabytes."""
UNKNOWN = -1
"""In the place of a tag's template: it is not the declared one of a tag."""


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody asks all processes to record. Times are microseconds by the server's clock."""

    id: str
    secret: str
    """Of the hashes; hexadecimal, 32 digits."""
    rate: Annotated[float, msgspec.Meta(gt=0, le=1)]
    """Share of the keys."""
    from_us: int
    until_us: int
    asked_by: str
    format: int = FORMAT


class RecordedView(msgspec.Struct, frozen=True, array_like=True):
    """A view, as it is declared."""

    name: str
    ttl_ms: int
    stale_ms: int
    """How long after that it is served while it is renewed."""
    tags: tuple[str, ...]


class RecordedKey(msgspec.Struct, frozen=True, array_like=True):
    """A sampled key, when the process first meets it."""

    key: int
    view: int
    """Its place among the chunk's views."""
    identity: int
    """0: of nobody."""
    scopes: tuple[tuple[int, int], ...]
    """Hash of each scope, and which of its view's tags it is; `UNKNOWN` for what is not a declared tag."""


class ReadRow(NamedTuple):
    """A read that memory did not answer at once."""

    at_ms: int
    key: int
    waited_ms: int
    loaded: int
    """1: it loaded; 0: it found a value, or joined somebody else's load."""


class LoadRow(NamedTuple):
    """A load; `at_ms` is its end."""

    at_ms: int
    key: int
    us: int
    bytes: int
    value: int
    """Hash of the value."""
    purpose: int
    """0: a reader waited for it; 1: a value was renewed; 2: a schedule loaded."""


class InvalidationRow(NamedTuple):
    """An invalidation of a scope that some recorded key belongs to, as the process heard of it."""

    at_ms: int
    scope: int
    clock_low: int
    """The lower 32 bits of its clock: two processes hear of the same one."""


class HeldRow(NamedTuple):
    """A sampled value that memory held when the recording began."""

    key: int
    left_ms: int
    """Until it is no longer fresh."""
    hits: int


class Counters(msgspec.Struct, frozen=True, array_like=True):
    """What the counters of a view rose by."""

    reads: int
    memory: int
    redis: int
    joined: int
    missed: int
    loads: int
    """Whatever for."""
    load_ms: int


class Chunk(msgspec.Struct, frozen=True, kw_only=True):
    """Some seconds of one process. Columns of rows are 32-bit numbers, at_ms counted from `base_us`."""

    format: int = FORMAT
    process: str
    base_us: int
    """When this process began to record, by the server's clock."""
    until_ms: int
    """Up to where this chunk reaches."""
    entries_most: int
    """What its memory may hold."""
    views: tuple[RecordedView, ...]
    counted: dict[str, Counters]
    tags: dict[str, int]
    """By template: tags that this process invalidated."""
    lost: int
    met: int
    """Keys that were met so far, in the sample or not."""
    keys: tuple[RecordedKey, ...]
    held: bytes
    """In the first chunk only."""
    hits: bytes
    """Pairs of at_ms and key: memory answered."""
    reads: bytes
    loads: bytes
    invalidations: bytes


class Hasher:
    """The hashes of one recording."""

    def __init__(self, wanted: Wanted) -> None:
        self._secret = bytes.fromhex(wanted.secret)
        self._below = int(wanted.rate * 2**32)

    def key_of(self, key: str) -> int:
        """Return the hash of a key that is in the sample, 0 of another one. Half of the digest decides which it is."""
        digest = blake2b(key.encode(), digest_size=8, key=self._secret).digest()
        if int.from_bytes(digest[:4]) >= self._below:
            return 0
        return int.from_bytes(digest[4:]) or 1

    def hash(self, data: bytes, bits: int = 32) -> int:
        """Return the hash of anything else, never 0."""
        digest = blake2b(data, digest_size=bits // 8, key=self._secret).digest()
        return int.from_bytes(digest) or 1


def packed(rows: Iterable[tuple[int, ...]]) -> bytes:
    """Return rows as 32-bit numbers, one after the other; larger ones are cut to the largest."""
    return array("I", [min(number, 0xFFFFFFFF) for row in rows for number in row]).tobytes()


def numbers(data: bytes, width: int) -> Iterator[tuple[int, ...]]:
    """Return the rows of *width* numbers in what `packed` made."""
    if len(data) % (4 * width):
        raise ConfigurationError("recording: damaged: a row of it is incomplete; record again")
    column = array("I")
    column.frombytes(data)
    return zip(*[iter(column)] * width, strict=True)


def encode_chunk(chunk: Chunk) -> bytes:
    """Return a chunk as it is stored."""
    return zstd.compress(msgspec.msgpack.encode(chunk), 1)


def decode_chunk(data: bytes) -> Chunk:
    """Return a stored chunk. Raises: ConfigurationError that says what is wrong with it."""
    try:
        unpacked = zstd.ZstdDecompressor().decompress(data, max_length=LARGEST_CHUNK)
        found = msgspec.msgpack.decode(unpacked, type=_Format).format
        if found != FORMAT:
            raise ConfigurationError(
                f"recording: a part is of format {found}, this version reads {FORMAT}; "
                "read it with the version that made it"
            )
        return msgspec.msgpack.decode(unpacked, type=Chunk)
    except (zstd.ZstdError, msgspec.DecodeError, UnicodeDecodeError) as damaged:
        raise ConfigurationError(f"recording: damaged: {damaged}; record again") from None


class _Format(msgspec.Struct):
    """What every version of a chunk has."""

    format: int = 0


class Recording(msgspec.Struct, frozen=True):
    """What was asked for, and what came."""

    wanted: Wanted
    chunks: list[bytes]
    """As `encode_chunk` made them, in the order they came."""


def to_file(recording: Recording) -> bytes:
    """Return a recording as the content of a file. The secret of its hashes is left out."""
    wanted = msgspec.structs.replace(recording.wanted, secret="")
    body = msgspec.msgpack.encode(Recording(wanted, recording.chunks))
    return b"%s%d\n%s" % (MAGIC, FORMAT, len(body).to_bytes(8) + body)


def from_file(content: bytes) -> Recording:
    """Return the recording in the content of a file. Raises: ConfigurationError that names what is wrong."""
    if not content:
        raise ConfigurationError("recording: the file is empty; write one with `cachebus analyze --keep FILE`")
    if not content.startswith(MAGIC):
        raise ConfigurationError("recording: not a recording; `cachebus analyze --keep FILE` writes one")
    version, _, rest = content[len(MAGIC) :].partition(b"\n")
    if version != str(FORMAT).encode():
        raise ConfigurationError(
            f"recording: it is of format {version[:10].decode(errors='replace')}, this version reads {FORMAT}; "
            "read it with the version that made it"
        )
    if len(rest) < 8 or len(rest) - 8 != int.from_bytes(rest[:8]):
        raise ConfigurationError("recording: cut short: the file ends before the recording does; copy it again")
    try:
        return msgspec.msgpack.decode(rest[8:], type=Recording)
    except (msgspec.DecodeError, UnicodeDecodeError) as damaged:
        raise ConfigurationError(f"recording: damaged: {damaged}; record again") from None
