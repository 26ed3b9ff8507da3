"""Files of trades: all of one can be recorded, or it is refused with row and field; and none is recorded twice."""

from __future__ import annotations

import datetime

import pytest

from tests.tradesense.conftest import TRADES, World
from tradesense import importing, queries, recording
from tradesense.importing import FileRefused, Problem, parse
from tradesense.market import INSTRUMENTS
from tradesense.recording import AlreadyImported, Order

HEAD = "symbol,side,quantity,price,at"
GOOD = "AAPL,buy,10,430.25,2013-02-28T15:30:00-05:00"


def problems(*lines: str, encoding: str = "utf-8") -> list[Problem]:
    """Return why a file of these lines is refused."""
    with pytest.raises(FileRefused) as refused:
        parse("\n".join(lines).encode(encoding), INSTRUMENTS)
    return refused.value.problems


def test_a_file_is_read_as_people_save_it() -> None:
    """Whatever order and case its columns have, with the mark that spreadsheets put first; times and fees may lack."""
    file = 'Price, Symbol,Side,quantity,FEE\r\n"430.25",aapl,Buy,10,\r\n27.5,FB,sell,3,0.50\r\n'
    assert parse(file.encode("utf-8-sig"), INSTRUMENTS) == [
        Order("AAPL", "buy", 10, "430.25"),
        Order("FB", "sell", 3, "27.5", "0.50"),
    ]
    (order,) = parse(f"{HEAD}\n{GOOD}".encode(), INSTRUMENTS)
    assert order.at == datetime.datetime(2013, 2, 28, 20, 30, tzinfo=datetime.UTC)


@pytest.mark.parametrize(
    ("row", "field", "said"),
    [
        ("XYZ,buy,1,1.00,", "symbol", "'XYZ' is not traded here; there are AAPL, FB, GOOG, IBM, MSFT"),
        ("FB,hold,1,1.00,", "side", "'hold' is neither 'buy' nor 'sell'"),
        ("FB,buy,1.5,1.00,", "quantity", "'1.5' is not a whole number from 1 to 1,000,000"),
        ("FB,buy,,1.00,", "quantity", "'' is not a whole number from 1 to 1,000,000"),
        ("FB,buy,1,cheap,", "price", "'cheap' is not an amount; write dollars such as '430.25'"),
        ("FB,buy,1,1.00,yesterday", "at", "'yesterday' is no time; write it as 2013-02-28T15:30:00-05:00"),
        ("FB,buy,1,1.00,2013-02-28T15:30:00", "at", "2013-02-28 15:30:00 has no time zone; give it one"),
        ("FB,buy,1,1.00,,more", "row", "it has more than 6 cells, or more than there are columns"),
        ("FB,buy", "quantity", "'' is not a whole number from 1 to 1,000,000"),
    ],
)
def test_a_row_that_cannot_be_recorded_is_named(row: str, field: str, said: str) -> None:
    """By its number below the column names, and by its line in the file."""
    (problem,) = problems(HEAD, *[GOOD] * 16, row, GOOD)
    assert problem == Problem(17, field, said)
    assert str(problem) == f"row 17 (line 18 of the file), {field}: {said}"


def test_a_file_that_is_no_table_of_trades_is_refused() -> None:
    """No rows, columns that lack or mean nothing, another encoding, a broken quote: each says what to do."""
    assert problems(HEAD) == [Problem(0, "file", "there is no row below the column names")]
    assert [each.field for each in problems("symbol,side,amount", "")] == ["quantity", "price", "amount"]
    assert problems(f"{HEAD}é", encoding="latin-1")[0].what == "byte 29 is not UTF-8; save it as CSV UTF-8"
    assert problems(HEAD, '"AAPL,buy')[0].what == "after line 1: unexpected end of data"
    assert problems("")[0].what == "this column is missing"


def test_a_refusal_names_the_first_problems_and_a_file_has_an_end() -> None:
    """Twenty of them, and no more rows than one transaction should hold."""
    assert len(problems(HEAD, *["FB,hold,1,1.00,"] * 100)) == importing.MOST_PROBLEMS
    assert problems(HEAD, *[GOOD] * (importing.MOST_ROWS + 1))[0].what == "it has more than 20,000 rows; split it"


async def test_a_file_is_imported_once(world: World) -> None:
    """The second time it is refused and says when it was; the same trades of another user are another import."""
    orders = parse("\n".join([HEAD, *[GOOD] * 1_200]).encode(), INSTRUMENTS)
    written: list[int] = []
    name = importing.name_of(orders)
    added = await recording.import_trades(7, orders, once=name, progress=written.append)
    assert (len(added), written) == (1_200, [500, 1_000, 1_200])
    with pytest.raises(AlreadyImported, match="1,200 trades; nothing was changed"):
        await recording.import_trades(7, orders, once=name)
    await recording.import_trades(8, orders, once=name)
    assert (await queries.statistics()).trades == TRADES + 2_400


async def test_an_import_that_fails_is_not_remembered(world: World) -> None:
    """Neither its rows nor its name are there, so it may be tried again."""
    orders = [Order("AAPL", "buy", 1, "1.00")] * 600

    def fails(_written: int) -> None:
        raise RuntimeError("the process ends here")

    with pytest.raises(RuntimeError):
        await recording.import_trades(7, orders, once="a", progress=fails)
    assert (await queries.statistics()).trades == TRADES
    await recording.import_trades(7, orders, once="a")
