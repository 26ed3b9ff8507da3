"""Events: now, later, and by schedule."""

from __future__ import annotations

import asyncio
from collections import Counter

from tests.chaos.harness import Attack, Findings
from tests.support.bus_harness import crash
from tests.support.bus_later_harness import ImportHarness, crash_an_import
from tests.support.process_faults import libfaketime
from tests.support.schedules_soak import soak
from tests.support.topologies import UNASKED, deployed

NO_CLOCKS = set() if libfaketime() else {"libfaketime (apt-get install faketime): every process has the true time"}


async def bus(attack: Attack) -> Findings:
    """Kill, stop and starve workers whose clocks are wrong; kill, fill, cut and black-hole the server."""
    draw, broken = attack.draw, attack.broken
    replicated = attack.topology in ("sentinel", "cluster")
    one_of = draw.choice(["stop", "cut"] if replicated else ["stop", "die", "cut", "swallow"])
    another = draw.choice(["fill", "starve", "jump"])
    faults = {"stop": 2} if broken else {"kill": 2, one_of: 1, another: 1} | ({"die": 1} if replicated else {})
    seen, harness = await crash(
        events=60 if broken else 400,
        faults=faults,
        seed=draw.randrange(1 << 20),
        fence=not broken,
        topology=attack.topology,
    )
    parts = ("lost", "twice", "invented", "disordered", "not_invalidated")
    wrong = [f"{part}: {getattr(seen, part)}" for part in parts if getattr(seen, part)]
    if harness.done[UNASKED]:  # acknowledged writes are gone: nothing can be said of this round
        return Findings(Counter({"rounds not judged": 1}), harness.done, [], set(NO_CLOCKS))
    counts = Counter(events=seen.published, plain=seen.plain, condemned=len(seen.condemned))
    counts += Counter(lost=len(seen.lost), twice=len(seen.twice))
    if not seen.sound and not wrong:
        wrong = [f"dead letter: {letter.kind}, {letter.reason}" for letter in seen.letters]
    return Findings(counts, harness.done, wrong, set(NO_CLOCKS))


class Forgetful(ImportHarness):
    """Delayed events are kept where the workers are, as it were, and die with them. It has no import."""

    async def _import(self, killing: asyncio.Task[None]) -> None:
        await self._bus.publish("imports", {"n": 0})
        await killing

    async def _kill(self) -> None:
        """Kill nobody yet."""

    async def _overdue(self) -> bool:
        overdue = await super()._overdue()
        if overdue:
            names = self._client.names
            await self._client.store.call("DEL", names.bus("delayed"), names.bus("delayed-items"), timeout_s=5.0)
        return overdue

    async def _closed(self) -> bool:
        return True

    async def _done(self) -> bool:
        return True


async def later(attack: Attack) -> Findings:
    """Kill workers during an import whose handler is debounced, and the server while delayed events come due."""
    kind, kills = (Forgetful, 0) if attack.broken else (ImportHarness, 2)
    seed = attack.draw.randrange(1 << 20)
    seen, harness = await crash_an_import(events=600, kills=kills, seed=seed, topology=attack.topology, kind=kind)
    wrong = [f"lost {seen.lost}"] if seen.lost else []
    wrong += [f"twice {seen.twice}"] if seen.twice else []
    if seen.broadcasts != [seen.imported - 1]:
        wrong.append(f"broadcasts {seen.broadcasts} of {seen.imported} events")
    counts = Counter(imported=seen.imported, delayed=seen.delayed, lost=len(seen.lost), twice=len(seen.twice))
    return Findings(counts, Counter({"kill": kills, "no worker": 1, harness.fault: 1}), wrong, set(NO_CLOCKS))


async def schedules(attack: Attack) -> Findings:
    """Kill or freeze whoever holds a run; kill, fill and cut the server; let every clock jump."""
    draw, broken = attack.draw, attack.broken
    others = () if broken else tuple(draw.sample(["die", "fill", "cut", "jump"], 2))
    async with deployed(attack.topology) as deployment:
        seen = await soak(
            deployment,
            kills=3,
            lease_ms=1_000,
            options=("--without-claim",) if broken else (),
            seed=draw.randrange(1 << 20),
            others=others,
        )
    counts = Counter({"fire times": seen.started, "once more": seen.twice, "unaccounted": seen.unaccounted})
    faults = Counter(kill=seen.kills, stop=seen.freezes) + Counter(seen.others)
    return Findings(counts, faults, seen.wrong, set(NO_CLOCKS))
