"""What an application of the fleet notes while it works: a line for each, written before the next step, so that kill -9
takes none of them.

Moments are those of the monotonic clock, which all processes of a machine share.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Self

import msgspec


class Note(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """One of those below."""


class Began(Note, frozen=True, array_like=True, tag=True):
    """Version *n* of *key* is about to be true and to be published, or invalidated directly."""

    key: str
    n: int
    event: bool


class Accepted(Note, frozen=True, array_like=True, tag=True):
    """`publish` has returned."""

    key: str
    n: int


class Invalidated(Note, frozen=True, array_like=True, tag=True):
    """`invalidate` has returned, and was not queued: what is older than version *n* was gone everywhere by then."""

    key: str
    n: int
    at: float


class Read(Note, frozen=True, array_like=True, tag=True):
    """A read that *began* then has brought *version*."""

    key: str
    version: int
    began: float
    connected: bool
    """Whether the cache said so, before and after."""
    own: int = 0
    """The version that this process had just invalidated: nothing older is right, queued or not."""


class Stalled(Note, frozen=True, array_like=True, tag=True):
    """This process did not run in between: it was stopped, or the machine had more to do than cores."""

    first: float
    last: float


class Raised(Note, frozen=True, array_like=True, tag=True):
    """What a caller would have seen."""

    what: str


AnyNote = Began | Accepted | Invalidated | Read | Stalled | Raised
_DECODER = msgspec.json.Decoder(AnyNote)


class Notebook:
    """The file of one application, which the next process of that name continues."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def write(self, note: AnyNote) -> None:
        """Add a note. It is in the file when this returns."""
        os.write(self._file, msgspec.json.encode(note) + b"\n")


class Past:
    """What an application has noted so far."""

    def __init__(self, notes: list[AnyNote]) -> None:
        self.notes = notes

    @classmethod
    def of(cls, path: Path) -> Self:
        """Read a file, if there is one; a last line that is not whole is left out."""
        lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
        return cls([_DECODER.decode(line) for line in lines])

    def last(self, key: str) -> int:
        """Return the last version of *key* that was begun, 0 for none."""
        return max((note.n for note in self.notes if isinstance(note, Began) and note.key == key), default=0)

    def in_doubt(self, key: str) -> bool:
        """Whether the last version is an event that was begun and not accepted."""
        last = self.last(key)
        own = [note for note in self.notes if isinstance(note, Began | Accepted) and (note.key, note.n) == (key, last)]
        return any(isinstance(note, Began) and note.event for note in own) and len(own) == 1
