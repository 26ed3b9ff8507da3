"""Says which tasks do not end though they were cancelled, and at which line of the application each of them is."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from types import AsyncGeneratorType, FrameType
from typing import Any

log = logging.getLogger("cachebus")

_AROUND = tuple(f"{folder}{os.sep}" for folder in (Path(__file__).parents[1], Path(asyncio.__file__).parent))
"""Frames of this library and of asyncio lie around and beneath those of the application, and say nothing of it."""


def say_what_hangs() -> None:
    """Log each task of the running loop that was cancelled and has not ended."""
    for task in asyncio.all_tasks():
        if task.cancelling():
            log.error("%s swallows its cancellation; this process ends without it", _described(task))


def _described(task: asyncio.Task[Any]) -> str:
    frames = _frames(task.get_coro())
    places = [_place(frame) for frame in frames if not frame.f_code.co_filename.startswith(_AROUND)]
    return " > ".join(places) or f"task {task.get_name()!r}"


def _place(frame: FrameType) -> str:
    code = frame.f_code
    return f"{frame.f_globals.get('__name__')}.{code.co_qualname} ({code.co_filename}:{frame.f_lineno})"


def _frames(awaited: Any) -> Iterator[FrameType]:
    """Yield where a coroutine stands, from the outside in. `Task.get_stack` knows the outermost frame only."""
    while awaited is not None:
        frame = getattr(awaited, "cr_frame", None) or getattr(awaited, "ag_frame", None)
        if frame is not None:
            yield frame
            awaited = getattr(awaited, "cr_await", None) or getattr(awaited, "ag_await", None)
        else:  # one step of an asynchronous generator, such as a handler that yields: only the collector knows whose
            awaited = next((each for each in gc.get_referents(awaited) if isinstance(each, AsyncGeneratorType)), None)
