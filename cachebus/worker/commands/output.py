"""What commands print: tables on a terminal, plain columns in a pipe, JSON for programs, progress while it takes long.

What others wrote (names, keys, reasons) is shown with its control characters escaped: a key must not move the cursor
of whoever looks at it, nor look like a style.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from importlib.util import find_spec
from typing import TextIO

import msgspec

Cell = str | int | float | None
"""None is shown as '-'."""
Step = Callable[[int], None]
"""Called with how much more is done."""


def write_json(value: object) -> None:
    """Write one JSON document, on a line of its own."""
    sys.stdout.write(msgspec.json.encode(value).decode() + "\n")


def write_table(columns: Sequence[str], rows: Sequence[Sequence[Cell]], nothing: str) -> None:
    """Write *rows* below the names of *columns*, or *nothing* where there is none.

    In a pipe: columns two spaces apart, nothing cut, wrapped or grouped, so that `awk`, `sort` and `grep` work.
    """
    if not rows:
        sys.stdout.write(nothing + "\n")
    elif _is_rich(sys.stdout):
        _write_rich(columns, rows)
    else:
        _write_plain(columns, rows)


def printable(text: str) -> str:
    """Return *text* on one line: what would move the cursor or turn the writing round is written as an escape."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def moment(us: float, timespec: str = "seconds") -> str:
    """Return a time of the server (us since 1970) in this machine's zone, with its distance from UTC."""
    return datetime.fromtimestamp(us / 1e6).astimezone().isoformat(sep=" ", timespec=timespec)


def span(us: float) -> str:
    """Return a length of time in the unit that leaves a small number."""
    seconds = max(0, round(us / 1e6))
    for unit, length in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"


@contextmanager
def progress(what: str, total: int | None = None) -> Iterator[Step]:
    """Show on a terminal's stderr how far something long is; elsewhere nothing. *total* None: nobody knows."""
    if not _is_rich(sys.stderr):
        yield lambda _more: None
        return
    from rich.console import Console  # noqa: PLC0415 - only on a terminal
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: PLC0415

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda more: bar.advance(task, more)


@contextmanager
def following(what: str, said: Callable[[], str]) -> Iterator[None]:
    """Show on a terminal's stderr that something runs, with what it last said; elsewhere nothing."""
    if not _is_rich(sys.stderr):
        yield
        return
    from rich.console import Console  # noqa: PLC0415 - only on a terminal
    from rich.live import Live  # noqa: PLC0415
    from rich.spinner import Spinner  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    spinner = Spinner("line")

    def shown() -> Spinner:
        spinner.update(text=Text(printable(f"{what}  {said()}")))
        return spinner

    with Live(get_renderable=shown, console=Console(stderr=True), transient=True):
        yield


def _is_rich(stream: TextIO) -> bool:
    return stream.isatty() and find_spec("rich") is not None


def _write_plain(columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> None:
    shown = [list(columns), *([_plain(cell) for cell in row] for row in rows)]
    widths = [max(len(row[at]) for row in shown) for at in range(len(columns))]
    for row in shown:
        line = "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True))
        sys.stdout.write(line.rstrip() + "\n")


def _plain(cell: Cell) -> str:
    if cell is None or cell == "":
        return "-"
    return printable(cell) if isinstance(cell, str) else f"{cell:g}" if isinstance(cell, float) else str(cell)


def _write_rich(columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> None:
    from rich import box  # noqa: PLC0415 - only on a terminal
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold", show_edge=False)
    for at, name in enumerate(columns):
        number = any(isinstance(row[at], int | float) for row in rows)
        table.add_column(name, justify="right" if number else "left", overflow="fold", no_wrap=number)
    for row in rows:
        table.add_row(*(Text(f"{cell:,}" if isinstance(cell, int) else _plain(cell)) for cell in row))
    Console(highlight=False).print(table)
