"""Changes that other programs make, told by PostgreSQL: triggers that write the tags of changed rows into the outbox.

`cachebus pg-triggers` prints what a migration executes. A worker with that OUTBOX publishes the rows as it does all
others, and invalidates the tags: whoever changed the table, `psql` included.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from string import Formatter

import msgspec

from cachebus.bus.effects import Effects, Invalidate
from cachebus.bus.handlers import on
from cachebus.errors import ConfigurationError
from cachebus.freshness.scopes import names
from cachebus.templates import UNFIT, without_controls

CHANNEL = "cachebus:rows-changed"
TAGS_IN_A_ROW = 200
"""Of a statement that changes many rows; the others go into further events."""
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,39}")
_TYPES = ("smallint", "integer", "bigint", "text", "character varying", "uuid")
"""Of columns in a tag: PostgreSQL and Python write the values of others differently."""
_ROWS = {
    "INSERT": "REFERENCING NEW TABLE AS new_rows ",
    "UPDATE": "REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows ",
    "DELETE": "REFERENCING OLD TABLE AS old_rows ",
    "TRUNCATE": "",
}
"""What a trigger of each statement sees of its rows."""


class RowsChanged(msgspec.Struct, frozen=True):
    """Rows of a table changed, and with them what these tags belong to."""

    tags: list[str] = []
    everything: bool = False
    """The table was truncated: nobody knows which rows it had."""


@on(CHANNEL, RowsChanged)
def rows_changed(event: RowsChanged) -> Effects:
    """Make what was computed from the rows unreadable. Safe to run twice. Every worker with an OUTBOX has it."""
    if event.everything:
        yield Invalidate(prefix="")
    elif tags := [without_controls(tag) for tag in event.tags if tag]:
        yield Invalidate(tags=tags)


class RowTriggers:
    """The triggers of one table. Raises: ConfigurationError for a name or a tag that cannot be."""

    def __init__(self, table: str, tags: str | Sequence[str], outbox: str) -> None:
        self._table = _quoted("table", table)
        self._regclass = _literal(self._table)
        self._outbox = _quoted("outbox", outbox)
        self._name = f"{table.rpartition('.')[2]}_cachebus"
        schema, dot, _ = self._table.rpartition(".")
        self._function = f'{schema}{dot}"{self._name}"'
        self._tags = [_parsed(tag) for tag in names(tags)]

    def create(self) -> str:
        """Return one statement that makes them, or makes them again; what is missing is said in one line."""
        if not self._tags:
            raise ConfigurationError("pg-triggers: name what a changed row invalidates, such as --tag user:{user_id}")
        return f"DO $cachebus$\nBEGIN\n{self._checks()}{self._statements()}END\n$cachebus$;\n"

    def drop(self) -> str:
        """Return the statement that removes them."""
        return f"DROP FUNCTION IF EXISTS {self._function}() CASCADE;\n"

    def _checks(self) -> str:
        columns = sorted({name for tag in self._tags for _, name in tag if name is not None})
        outbox = _literal(self._outbox)
        lines = [
            f"  IF to_regclass({self._regclass}) IS NULL THEN\n"
            f"    RAISE EXCEPTION 'cachebus: there is no table %', {self._regclass};\n  END IF;\n",
            f"  IF to_regclass({outbox}) IS NULL THEN\n"
            f"    RAISE EXCEPTION 'cachebus: there is no outbox %; create its table first', {outbox};\n  END IF;\n",
        ]
        for column in columns:
            kind = (
                "(SELECT format_type(atttypid, NULL) FROM pg_attribute\n"
                f"      WHERE attrelid = to_regclass({self._regclass}) AND attname = {_literal(column)}\n"
                "        AND attnum > 0 AND NOT attisdropped)"
            )
            lines += [
                f"  IF {kind} IS NULL THEN\n    RAISE EXCEPTION 'cachebus: % has no column {column}', "
                f"{self._regclass};\n  END IF;\n",
                f"  IF {kind} NOT IN ({', '.join(map(_literal, _TYPES))}) THEN\n"
                f"    RAISE EXCEPTION 'cachebus: column {column} of % is neither a whole number, text nor UUID', "
                f"{self._regclass};\n  END IF;\n",
            ]
        return "".join(lines)

    def _statements(self) -> str:
        function = f"CREATE OR REPLACE FUNCTION {self._function}() RETURNS trigger LANGUAGE plpgsql AS {self._body()}"
        triggers = [
            f'CREATE OR REPLACE TRIGGER "{self._name}_{verb.lower()}" AFTER {verb} ON {self._table} {rows}'
            f"FOR EACH STATEMENT EXECUTE FUNCTION {self._function}()"
            for verb, rows in _ROWS.items()
        ]
        return "".join(f"  EXECUTE $sql$ {statement} $sql$;\n" for statement in (function, *triggers))

    def _body(self) -> str:
        """Return the function: the distinct tags of the rows as they were and as they are, a few hundred an event."""
        insert = f"INSERT INTO {self._outbox} (id, channel, payload)\n    SELECT gen_random_uuid()::text, '{CHANNEL}', "

        def of(*rows: str) -> str:
            every = " UNION ALL ".join(f"SELECT {_expression(tag)} FROM {name}" for tag in self._tags for name in rows)
            return (
                f"{insert}json_build_object('tags', json_agg(tag))::text FROM (\n"
                f"      SELECT tag, (row_number() OVER () - 1) / {TAGS_IN_A_ROW} AS part FROM (\n"
                f"        SELECT DISTINCT tag FROM ({every}) AS every(tag) WHERE tag IS NOT NULL\n"
                "      ) AS named\n    ) AS parts GROUP BY part;"
            )

        everything = f"{insert}'{{\"everything\": true}}';"
        return (
            "$body$\nBEGIN\n"
            f"  IF TG_OP = 'INSERT' THEN\n    {of('new_rows')}\n"
            f"  ELSIF TG_OP = 'UPDATE' THEN\n    {of('old_rows', 'new_rows')}\n"
            f"  ELSIF TG_OP = 'DELETE' THEN\n    {of('old_rows')}\n"
            f"  ELSE\n    {everything}\n"
            "  END IF;\n  RETURN NULL;\nEND $body$"
        )


def _parsed(tag: str) -> list[tuple[str, str | None]]:
    """Return the parts of a tag: text, and the column behind it."""
    if not tag or UNFIT.search(tag) or "$" in tag or "%" in tag:
        raise ConfigurationError(f"tag: {tag!r} must be text without control characters, lone surrogates, '$' and '%'")
    try:
        parts = list(Formatter().parse(tag))
    except ValueError as wrong:
        raise ConfigurationError(f"tag: {tag!r}: {wrong}") from None
    for _, name, spec, conversion in parts:
        if name is not None and (spec or conversion or not _NAME.fullmatch(name)):
            raise ConfigurationError(f"tag: {{{name}}} in {tag!r} is not a column; write it like user:{{user_id}}")
    return [(text, name) for text, name, _, _ in parts]


def _expression(tag: list[tuple[str, str | None]]) -> str:
    """Return the tag of a row in SQL; NULL, which names nothing, where a column is NULL."""
    words: list[str] = []
    for text, name in tag:
        words += [_literal(text)] if text else []
        words += [f'"{name}"::text'] if name else []
    return " || ".join(words)


def _quoted(what: str, name: str) -> str:
    parts = name.split(".")
    if len(parts) > 2 or not all(map(_NAME.fullmatch, parts)):
        raise ConfigurationError(
            f"{what}: {name!r} is not the name of a table; letters, digits and '_', at most 40 of them, or schema.table"
        )
    return ".".join(f'"{part}"' for part in parts)


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
