"""A CSV file of trades, checked row by row: either all of it can be recorded, or it is refused with row and field.

The first line names the columns: `symbol`, `side`, `quantity`, `price`, and if one likes `fee` and `at` (ISO 8601 with
an offset; without it the trade was made now). Rows are counted from 1, below that line.
"""

from __future__ import annotations

import csv
import datetime
import hashlib
import io
from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

import msgspec

from tradesense.recording import Order, trade_row

REQUIRED = ("symbol", "side", "quantity", "price")
COLUMNS = (*REQUIRED, "fee", "at")
MOST_BYTES = 4_000_000
MOST_ROWS = 20_000
"""Recorded in one transaction, which keeps other writers of a SQLite file waiting meanwhile."""
MOST_PROBLEMS = 20
"""Problems that a refusal names: who sees so many has another file in hand than they think."""


class Problem(NamedTuple):
    """Why a file is refused. Row 0 is the line of column names, or the file as a whole."""

    row: int
    field: str
    what: str

    def __str__(self) -> str:
        where = f"row {self.row} (line {self.row + 1} of the file), " if self.row else ""
        return f"{where}{self.field}: {self.what}"


class FileRefused(ValueError):
    """The file cannot be recorded; nothing was."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems
        super().__init__("; ".join(map(str, problems)))


def parse(file: bytes, symbols: Collection[str]) -> list[Order]:
    """Return the trades of a file in its order, each fit to be recorded. Raises: FileRefused."""
    orders: list[Order] = []
    problems: list[Problem] = []
    for number, cells in enumerate(_rows(file), start=1):
        try:
            orders.append(_order(cells, symbols))
        except ValueError as refused:
            field, _, what = str(refused).partition(": ")
            problems.append(Problem(number, field, what))
        if number > MOST_ROWS:
            problems.append(Problem(0, "file", f"it has more than {MOST_ROWS:,} rows; split it"))
        if len(problems) >= MOST_PROBLEMS or number > MOST_ROWS:
            break
    if not orders and not problems:
        problems.append(Problem(0, "file", "there is no row below the column names"))
    if problems:
        raise FileRefused(problems)
    return orders


def name_of(orders: list[Order]) -> str:
    """Return a name for an import of these trades: the same for the same trades in the same order."""
    return hashlib.sha256(msgspec.json.encode(orders)).hexdigest()


def _rows(file: bytes) -> Iterator[dict[str, Any]]:
    """Yield the rows by column. Raises: FileRefused for what is no table of trades."""
    try:
        text = file.decode("utf-8-sig")  # as spreadsheets save it
    except UnicodeDecodeError as wrong:
        raise FileRefused([Problem(0, "file", f"byte {wrong.start} is not UTF-8; save it as CSV UTF-8")]) from None
    reader = csv.DictReader(io.StringIO(text), restkey="…", strict=True)
    try:
        names = [name.strip().lower() for name in reader.fieldnames or ()]
        if problems := [
            *(Problem(0, name, "this column is missing") for name in REQUIRED if name not in names),
            *(Problem(0, name, f"no column; there are {', '.join(COLUMNS)}") for name in names if name not in COLUMNS),
        ]:
            raise FileRefused(problems[:MOST_PROBLEMS])
        reader.fieldnames = names
        yield from reader
    except csv.Error as wrong:
        raise FileRefused([Problem(0, "file", f"after line {reader.line_num}: {wrong}")]) from None


def _order(cells: dict[str, Any], symbols: Collection[str]) -> Order:
    """Return the trade of a row. Raises: ValueError that begins with the field."""
    if "…" in cells:
        raise ValueError(f"row: it has more than {len(COLUMNS)} cells, or more than there are columns")
    given = {name: (value or "").strip() for name, value in cells.items()}
    symbol, quantity, at = given["symbol"].upper(), given["quantity"], given.get("at")
    if symbol not in symbols:
        raise ValueError(f"symbol: {symbol!r} is not traded here; there are {', '.join(sorted(symbols))}")
    order = Order(
        symbol=symbol,
        side=given["side"].lower(),
        quantity=int(quantity) if quantity.isdecimal() else quantity,  # type: ignore[arg-type] # the check names it
        price=given["price"],
        fee=given.get("fee") or "1.00",
        at=_instant(at) if at else None,
    )
    trade_row(0, order)
    return order


def _instant(text: str) -> datetime.datetime:
    try:
        return datetime.datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"at: {text!r} is no time; write it as 2013-02-28T15:30:00-05:00") from None
