"""What the worker says is readable by a platform: one JSON line each, not too long, without secrets."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from cachebus.process import logs
from cachebus.process.masking import Masking


@pytest.fixture
def said() -> Iterator[io.StringIO]:
    """Logging as `run` sets it up, into a text; what was there before is put back."""
    root = logging.getLogger()
    before = root.handlers[:], root.level, structlog.get_config(), logging._warnings_showwarning  # type: ignore[attr-defined]  # what captureWarnings keeps
    levels = {name: logging.getLogger(name).level for name in logs.QUIET}
    stream = io.StringIO()
    logs.configure("info", "json", Masking(["redis://u:hunter22@h/0"]), stream)
    yield stream
    root.handlers[:], root.level = before[0], before[1]
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_the_worker_and_the_library_speak_alike(said: io.StringIO) -> None:
    """structlog's and the library's messages come out in the same fields, below the level none does."""
    structlog.get_logger("worker").info("ready", services=4)
    logging.getLogger("cachebus").warning("redis unavailable: %s", "refused")
    logging.getLogger("cachebus").debug("not worth a line")
    ready, away = lines(said)
    assert (ready["level"], ready["message"], ready["services"]) == ("info", "ready", 4)
    assert (away["level"], away["message"], away["logger"]) == ("warning", "redis unavailable: refused", "cachebus")


def test_a_traceback_is_one_line(said: io.StringIO) -> None:
    """An exception is a field of its line; a platform that reads line by line sees one record."""
    logging.getLogger("cachebus").error("broke", exc_info=ValueError("first\nsecond"))
    (line,) = lines(said)
    assert "ValueError: first\nsecond" in line["exception"]


@pytest.mark.parametrize("blob", ["x" * 1_000_000, "é€𝄞" * 100_000, {"nested": ["y" * 50_000] * 9}])
def test_no_line_is_longer_than_8_kb(said: io.StringIO, blob: object) -> None:
    """A huge value is cut in its middle, and the line says so and stays JSON."""
    structlog.get_logger("worker").error("big", blob=blob, id="kept")
    assert len(said.getvalue().rstrip("\n").encode()) <= 8_192
    (line,) = lines(said)
    assert (line["message"], line["id"], line["truncated"]) == ("big", "kept", "true")


def test_a_cut_traceback_keeps_its_end(said: io.StringIO) -> None:
    """The last line of a traceback, which says what happened, survives the cut."""
    structlog.get_logger("worker").error(
        "broke", exception="Traceback:\n" + "  at\n" * 9_000 + "ValueError: the reason"
    )
    (line,) = lines(said)
    assert line["exception"].endswith("ValueError: the reason")


def test_a_thousand_fields_fit_too(said: io.StringIO) -> None:
    """Where it is the number of fields, the first ones stay: time, level, message."""
    structlog.get_logger("worker").info("wide", **{f"field_{i}": i for i in range(5_000)})
    (line,) = lines(said)
    assert line["message"] == "wide"


def test_a_secret_is_masked_wherever_it_stands(said: io.StringIO) -> None:
    """In a message, a field, a traceback: the password never comes out."""
    log = structlog.get_logger("worker")
    log.info("at redis://u:hunter22@h/0", url="redis://u:hunter22@h/0", nested={"password": "hunter22"})
    log.error("hunter22", exc_info=ValueError("AUTH hunter22"))
    assert "hunter22" not in said.getvalue()
    assert len(lines(said)) == 2


def test_a_console_is_for_people() -> None:
    """`LOG_FORMAT=console` writes no JSON, and masks all the same."""
    stream = io.StringIO()
    root, before = logging.getLogger(), logging.getLogger().handlers[:]
    try:
        logs.configure("info", "console", Masking(["redis://u:hunter22@h/0"]), stream)
        structlog.get_logger("worker").info("ready hunter22")
    finally:
        root.handlers[:] = before
        logging.captureWarnings(capture=False)
        structlog.reset_defaults()
    assert "ready ***" in stream.getvalue()
    assert "{" not in stream.getvalue()
