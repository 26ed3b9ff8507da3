"""Walks in small steps: over the names of a server, node by node, and over the records of a stream."""

from __future__ import annotations

from collections.abc import AsyncIterator
from itertools import count

from cachebus.redis.keyspace import key_slot
from cachebus.redis.replies import named
from cachebus.redis.server import Server

PAGE = 500
"""Names or records a step looks at: a few hundred microseconds of the server."""
TIMEOUT_S = 2.0
"""Of a page of records, which may be large."""


async def names_like(server: Server, pattern: str) -> AsyncIterator[list[str]]:
    """Yield names that *pattern*, a glob, matches, of every node; a page may be empty, a name may come twice.

    As long as the keyspace is large; each step is one command. Raises: ServerError.
    """
    for node in await key_on_each_node(server):
        cursor = b"0"
        while True:
            cursor, names = await server.call("SCAN", cursor, "MATCH", pattern, "COUNT", PAGE, key=node)
            yield [name.decode(errors="replace") for name in names]
            if cursor == b"0":
                break


async def stream_pages(server: Server, name: str) -> AsyncIterator[list[tuple[bytes, dict[str, bytes]]]]:
    """Yield what a stream holds, the oldest first: the id and the fields of each record. Raises: ServerError."""
    after = "-"
    while page := await server.call("XRANGE", name, after, "+", "COUNT", PAGE, timeout_s=TIMEOUT_S):
        yield [(identity, named(flat)) for identity, flat in page]
        after = f"({page[-1][0].decode()}"


async def key_on_each_node(server: Server) -> list[str]:
    """Return some key of each node of a cluster; of a lone node any key. Raises: ServerError."""
    if server.one_connection:
        return ["0"]
    shards = await server.call("CLUSTER", "SLOTS")
    spans = {(node[0], node[1]): (first, last) for first, last, node, *_ in shards}
    return [next(k for k in map(str, count()) if first <= key_slot(k) <= last) for first, last in spans.values()]


def literal(text: str) -> str:
    """Escape what a glob would take for a wildcard."""
    return "".join(f"\\{letter}" if letter in "*?[]\\" else letter for letter in text)
