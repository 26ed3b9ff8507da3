"""A trained zstd dictionary: what small, similar values have in common, said once. Pure."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence

from cachebus.entry import WORTH_RATIO, ZSTD_LEVEL, inflated, smaller

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

TRAINED_BYTES = 4096
ENTRY_BYTES = 180
"""What an entry takes beside its value: its key, its header, the server's bookkeeping; no dictionary reaches them."""
DIGEST_BYTES = 8


class Dictionary:
    """One dictionary. What it compressed names it: `id` stands in the zstd frame."""

    def __init__(self, content: bytes) -> None:
        """Raises: ValueError for bytes that are no dictionary."""
        trained = zstd.ZstdDict(content)
        self.id = trained.dict_id
        self._content = content
        self._compressor = zstd.ZstdCompressor(level=ZSTD_LEVEL, zstd_dict=trained)
        self._trained = trained.as_digested_dict

    def compress(self, payload: bytes) -> bytes:
        """Return *payload* as a frame."""
        return self._compressor.compress(payload, zstd.ZstdCompressor.FLUSH_FRAME)

    def inflate(self, frame: bytes) -> bytes:
        """Return the payload. Raises: ValueError, ZstdError for a damaged frame, or one of another dictionary."""
        return inflated(frame, self._trained)

    def sealed(self) -> bytes:
        """Return it as bytes that tell whether they are whole."""
        return _digest(self._content) + self._content

    @classmethod
    def opened(cls, sealed: bytes) -> Dictionary:
        """Return what `sealed` made. Raises: ValueError for damaged bytes: they would inflate to something else."""
        digest, content = sealed[:DIGEST_BYTES], sealed[DIGEST_BYTES:]
        if digest != _digest(content):
            raise ValueError("the dictionary is damaged")
        return cls(content)


def train(samples: Sequence[bytes]) -> Dictionary | None:
    """Return a dictionary that makes entries of values like *samples* a tenth smaller; None where none does.

    A fifth of the samples is kept apart to tell. Takes tens of milliseconds for some hundred samples.
    """
    learnt, tested = [sample for at, sample in enumerate(samples) if at % 5], samples[::5]
    try:
        dictionary = Dictionary(zstd.train_dict(learnt, TRAINED_BYTES).dict_content)
    except zstd.ZstdError:  # nothing in common, or too little of it
        return None
    without = sum(ENTRY_BYTES + len(smaller(sample) or sample) for sample in tested)
    with_it = sum(ENTRY_BYTES + min(len(sample), len(dictionary.compress(sample))) for sample in tested)
    return dictionary if with_it <= without * WORTH_RATIO else None


def frame_id(frame: bytes) -> int:
    """Return the id of the dictionary that made *frame*. Raises: ZstdError for what is no frame."""
    return zstd.get_frame_info(frame).dictionary_id


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=DIGEST_BYTES).digest()
