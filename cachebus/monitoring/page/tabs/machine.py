"""*Machine*: servers over a day, processes, shards, and what `cachebus doctor` says of them."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress

import msgspec
from msgspec import structs

from cachebus.bus.backlog import Backlog
from cachebus.cache.upkeep.reporter import ProcessReport
from cachebus.errors import ServerError
from cachebus.monitoring.history import Release
from cachebus.monitoring.page.tabs.inventory import Inventory
from cachebus.monitoring.verdict.chronicle import Sample, time_to_full_ms
from cachebus.monitoring.verdict.gathering import Glance, Known
from cachebus.monitoring.verdict.marks import Mark
from cachebus.monitoring.verdict.servers import ServerFacts
from cachebus.monitoring.workers import WorkerEntry
from cachebus.redis.client import Client
from cachebus.redis.server import Server

SLOW_COMMANDS = 20
MOST_CLIENTS = 2_000
"""Of more connections there is no list: it would be megabytes."""
LONGEST_COMMAND = 200


class SlowCommand(msgspec.Struct, frozen=True):
    """One line of a server's slow log."""

    at_ms: float
    took_ms: float
    command: str
    """Its first words; of values there may be personal data in it, so no more than names."""
    client: str


class ClientsOf(msgspec.Struct, frozen=True):
    """Connections from one machine."""

    host: str
    name: str
    connections: int


class FindingShown(msgspec.Struct, frozen=True):
    """What `doctor` says of a server."""

    grade: str
    """ok, warning or bad."""
    what: str
    fix: str


class MachineShown(msgspec.Struct, frozen=True):
    """The answer of `api/machine`; parts are None while Redis does not answer."""

    servers: list[ServerFacts]
    samples: list[Sample] = []
    """By minutes, of a day."""
    full_in_ms: float | None = None
    marks: list[Mark] = []
    processes: list[ProcessReport] | None = None
    workers: list[WorkerEntry] | None = None
    backlog: Backlog | None = None
    inventory: Inventory | None = None
    releases: list[Release] = []
    slow: list[SlowCommand] | None = None
    """None: the server does not say."""
    clients: list[ClientsOf] | None = None
    findings: list[FindingShown] = []


async def slow_commands(server: Server) -> list[SlowCommand] | None:
    """Return the last slow commands of a server, without their values; None where it does not say."""
    with suppress(ServerError, ValueError, IndexError):
        lines = await server.call("SLOWLOG", "GET", SLOW_COMMANDS)
        return [
            SlowCommand(float(line[1]) * 1000, line[2] / 1000, _command(line[3]), line[4].decode(errors="replace"))
            for line in lines
        ]
    return None


async def clients_of(server: Server, number: int) -> list[ClientsOf] | None:
    """Return how many connections there are from where; None where the server does not say, or has too many."""
    if number > MOST_CLIENTS:
        return None
    with suppress(ServerError):
        text = (await server.call("CLIENT", "LIST", timeout_s=2.0)).decode(errors="replace")
        counted: Counter[tuple[str, str]] = Counter()
        for line in text.splitlines():
            fields = dict(part.partition("=")[::2] for part in line.split(" "))
            counted[fields.get("addr", "").rpartition(":")[0], fields.get("name", "")] += 1
        return [ClientsOf(host, name, number) for (host, name), number in counted.most_common(50)]
    return None


async def show_machine(
    client: Client, glance: Glance, known: Known, samples: list[Sample], found: Inventory, findings: list[FindingShown]
) -> MachineShown:
    """Return it. Raises: ServerError."""
    slow, clients = await asyncio.gather(
        slow_commands(client.store), clients_of(client.store, glance.servers[0].clients)
    )
    since_ms = samples[0].at_ms if samples else glance.at_ms
    return MachineShown(
        glance.servers,
        samples[-1440:],
        time_to_full_ms(samples),
        [mark for mark in known.marks if mark.reaches(since_ms)],
        [structs.replace(each, ttls_ms={}) for each in known.processes],  # of each view, in each of them
        known.workers,
        known.waits,
        found,
        known.releases,
        slow,
        clients,
        findings,
    )


def _command(parts: list[bytes]) -> str:
    """Return the command and the name it was about; a script's digest says nothing to people."""
    words = [part.decode(errors="replace")[:60] for part in parts[:4]]
    if words and words[0][:4].lower() == "eval":
        return f"{words[0]} … {' '.join(words[3:4])}"[:LONGEST_COMMAND]
    return " ".join(words[:2])[:LONGEST_COMMAND]
