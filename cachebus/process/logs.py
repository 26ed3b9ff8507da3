"""What the process says: to stdout, one JSON line each of at most 8 KB, or a console on a terminal; never a secret.

The library's messages (stdlib logging) go the same way as the worker's own (structlog).
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Mapping, MutableMapping
from types import MappingProxyType
from typing import Any, TextIO

import structlog

Fields = MutableMapping[str, Any]

LONGEST_LINE = 8_000
"""Bytes. Platforms split or drop longer lines; a little below 8 KB, for masking may lengthen a line."""
SHORTEST_PART = 16
FIRST = ("timestamp", "level", "message", "logger")
QUIET = ("asyncio", "apscheduler", "aiosqlite", "uvicorn", "sqlalchemy")
"""Loggers that speak only when something is wrong, unless everything is asked for."""


def configure(
    level: str,
    form: str,
    mask: Callable[[str], str],
    stream: TextIO | None = None,
    *,
    named: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Send every log message of this process to *stream* (stdout) in the chosen form. Safe to repeat.

    *named*: fields of every line in JSON, such as the process and its release.
    """
    stream = stream or sys.stdout
    console = form == "console" or (form == "auto" and stream.isatty())
    first: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    if console:
        last: list[structlog.typing.Processor] = [
            structlog.dev.ConsoleRenderer(
                colors=stream.isatty(),
                exception_formatter=structlog.dev.plain_traceback,  # locals may hold secrets
            )
        ]
    else:
        last = [
            structlog.processors.format_exc_info,
            structlog.processors.EventRenamer("message"),  # the name that log viewers of platforms know
            lambda _logger, _method, fields: json_line({**named, **fields}),
        ]

    def masked(_logger: Any, _method: str, line: Any) -> str:  # after the renderer there is only text
        return mask(line)

    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=first,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *last,
                masked,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in QUIET:
        logging.getLogger(name).setLevel("DEBUG" if level == "debug" else "WARNING")
    logging.captureWarnings(capture=True)
    structlog.configure(
        processors=[*first, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        cache_logger_on_first_use=False,
    )


def json_line(fields: Fields) -> str:
    """Return *fields* as one line of JSON. Too long: the longest values lose their middle until it fits."""
    fields = {name: fields[name] for name in FIRST if name in fields} | dict(fields)
    line = _dump(fields)
    if len(line) <= LONGEST_LINE:
        return line
    parts = {name: value if isinstance(value, str) else _dump(value) for name, value in fields.items()}
    parts["truncated"] = "true"
    while len(line := _dump(parts)) > LONGEST_LINE:
        longest = max(parts, key=lambda name: len(parts[name]))
        if len(parts[longest]) <= SHORTEST_PART:  # it is the number of fields
            parts = dict(list(parts.items())[: len(parts) // 2])
        else:
            parts[longest] = _without_middle(parts[longest])
    return line


def _without_middle(text: str) -> str:
    """Halve a text, keeping both ends: a traceback begins with where and ends with what."""
    keep = max(SHORTEST_PART, len(text) // 2) // 2
    return f"{text[:keep]}…{text[-keep + 1 :]}"


def _dump(value: object) -> str:
    return json.dumps(value, default=repr, skipkeys=True, separators=(",", ":"))
