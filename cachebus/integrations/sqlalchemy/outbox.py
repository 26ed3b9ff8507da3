"""Events in the application's own database, written in the transaction that changes the data: both, or neither.

A table and an INSERT into it. What is there is published by a `Relay`, which every worker runs that is told `OUTBOX`.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from typing import Any

from sqlalchemy import DDL, BigInteger, Column, DateTime, Integer, MetaData, String, Table, Text, event, func, insert
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.schema import ExecutableDDLElement
from sqlalchemy.sql.dml import Insert

from cachebus.bus.effects import delay_of
from cachebus.bus.events import LONGEST_CHANNEL, LONGEST_ID, PAYLOAD_BYTES, encode, envelope_fault
from cachebus.durations import Duration
from cachebus.errors import ConfigurationError, PublishRefused
from cachebus.tracing import TRACEPARENT_CHARACTERS, installed

NAME = "cachebus_outbox"
_GOOD_NAME = re.compile(r"[a-z_][a-z0-9_]{0,39}")
"""Leaves room for the names made from it: PostgreSQL cuts at 63 bytes, without a word."""


class Outbox:
    """A table of events that wait to be published. Safe to make at import time: nothing is connected."""

    def __init__(
        self,
        metadata: MetaData,
        engine: Callable[[], AsyncEngine],
        *,
        name: str = NAME,
        max_payload_bytes: int = PAYLOAD_BYTES,
    ) -> None:
        """Declare the table in *metadata*; *engine* is called by the relay, in its event loop.

        Raises: ConfigurationError for a name that is not lower case, digits and `_`, or too long.
        """
        if not _GOOD_NAME.fullmatch(name):
            raise ConfigurationError(f"name: {name!r} must be lower-case letters, digits and '_', at most 40 of them")
        self.engine = engine
        self.max_payload_bytes = max_payload_bytes
        self.table = outbox_table(metadata, name)

    @property
    def postgresql_ddl(self) -> tuple[str, ...]:
        """What a migration executes after it has created the table by hand; `metadata.create_all()` does it itself."""
        return _trigger(self.table)

    def insert(
        self,
        channel: str,
        event: Any,
        *,
        key: str | None = None,
        id: str | None = None,  # noqa: A002 - the field's own name
        delay: Duration | None = None,
    ) -> Insert:
        """Return the INSERT of an event, to be executed in the transaction that changes the data.

        For `execute()` of a Session, AsyncSession, Connection or AsyncConnection. *event* is encoded now, as
        `Bus.publish` does it. The event is in the stream once, under *id* or one made here. A *delay* counts from now
        on, by the database's clock.

        Raises: PublishRefused when the channel, payload, id or delay can never be published.
        """
        if fault := envelope_fault(channel, key, id):
            raise PublishRefused(fault)
        payload = encode(event, self.max_payload_bytes)
        name = secrets.token_hex(16) if id is None else id
        traceparent = (installed.tracer.current() if installed.tracer is not None else "") or None
        return insert(self.table).values(
            id=name,
            channel=channel,
            payload=payload.decode(),
            key=key,
            delay_ms=None if delay is None else delay_of(delay, "delay") or None,
            traceparent=traceparent,
        )


def outbox_table(metadata: MetaData, name: str = NAME) -> Table:
    """Return the table, declared in *metadata*; on PostgreSQL it is created with a trigger that wakes the relay.

    The number of a row is never given to another one: a slow relay that deletes what it has published must not delete
    what came later. The id may be there twice; the bus drops the second.
    """
    table = Table(
        name,
        metadata,
        Column("seq", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
        Column("id", String(LONGEST_ID), nullable=False),
        Column("channel", String(LONGEST_CHANNEL), nullable=False),
        Column("payload", Text, nullable=False),
        Column("key", Text),
        Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
        Column("delay_ms", BigInteger, comment="how long after created_at it is published"),
        Column("traceparent", String(TRACEPARENT_CHARACTERS), comment="of the span that wrote it, where one did"),
        Column("problem", Text, comment="why it can never be published; NULL while it waits"),
        sqlite_autoincrement=True,
    )
    for statement in _trigger(table):
        event.listen(table, "after_create", _on_postgresql(statement))
    drop = f"DROP FUNCTION IF EXISTS {_quoted(table, '_wake')}"
    event.listen(table, "after_drop", _on_postgresql(drop))
    return table


def _on_postgresql(statement: str) -> ExecutableDDLElement:
    ddl: ExecutableDDLElement = DDL(statement)  # type: ignore[no-untyped-call]  # SQLAlchemy's own, without types
    return ddl.execute_if(dialect="postgresql")


def _trigger(table: Table) -> tuple[str, ...]:
    """Return what makes PostgreSQL notify at COMMIT; once a transaction, however many rows."""
    function = _quoted(table, "_wake")
    return (
        f"CREATE OR REPLACE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN PERFORM pg_notify('{table.fullname}', ''); RETURN NULL; END $$",
        f'CREATE TRIGGER "{table.name}_wake" AFTER INSERT ON {_quoted(table)} '
        f"FOR EACH STATEMENT EXECUTE FUNCTION {function}()",
    )


def _quoted(table: Table, ending: str = "") -> str:
    schema = f'"{table.schema}".' if table.schema else ""
    return f'{schema}"{table.name}{ending}"'
