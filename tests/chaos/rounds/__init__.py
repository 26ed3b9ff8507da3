"""One round of each harness: a few seconds of load, with faults at random moments."""

from tests.chaos.harness import Harness
from tests.chaos.rounds.delivery import credentials, resume
from tests.chaos.rounds.events import bus, later, schedules
from tests.chaos.rounds.fleet import fleet
from tests.chaos.rounds.freshness import freshness, rule
from tests.chaos.rounds.primitives import limits, locks, sessions
from tests.support.topologies import TOPOLOGIES

EVERYWHERE = tuple(TOPOLOGIES)

HARNESSES = [
    Harness(
        "freshness",
        "No read is older than an invalidation that had returned.",
        "the birth of entries",
        freshness,
        EVERYWHERE,
    ),
    Harness("rule", "The rule of freshness itself lets nothing stale pass.", "the birth of entries", rule),
    Harness("bus", "Each event's effects are written once, in order.", "the fence of the commit", bus, EVERYWHERE),
    Harness(
        "later", "Delayed events come once; an import is one broadcast.", "that Redis keeps them", later, EVERYWHERE
    ),
    Harness(
        "fleet",
        "Four workers, four shards, four applications: once, in order by key, and nothing stale.",
        "that one key is in one shard",
        fleet,
        EVERYWHERE,
    ),
    Harness(
        "schedules",
        "Each fire time is started once, and again only after a death.",
        "the claim",
        schedules,
        EVERYWHERE,
    ),
    Harness("locks", "Two holders never both write.", "the lock", locks, EVERYWHERE),
    Harness("limits", "Each answer is what an exact model says.", "the common counter", limits, EVERYWHERE),
    Harness(
        "sessions", "A session that was ended is served by nobody.", "that no process keeps one", sessions, EVERYWHERE
    ),
    Harness("resume", "A browser gets each message once, or is told.", "the feed, as by PUBLISH alone", resume),
    Harness(
        "credentials", "Credentials that change cost nobody anything.", "that they are asked for again", credentials
    ),
]
