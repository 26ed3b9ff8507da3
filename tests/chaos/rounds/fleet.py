"""The deployment at full width: four workers, four shards, four applications."""

from __future__ import annotations

from tests.chaos.harness import Attack, Findings
from tests.support.fleet.harness import attacked


async def fleet(attack: Attack) -> Findings:
    """Kill and stop workers, kill applications, kill the server and close its connections, while all of them work."""
    draw, plan = attack.draw, ["cut"]
    if not attack.broken:
        plan += ["kill", "kill", "abandon", "abandon", "die"]
        draw.shuffle(plan)
        for _ in range(draw.randint(1, 2)):  # early: it lasts for some seconds, in which the others come
            plan.insert(draw.randrange(len(plan) // 2), "stop")
    seen = await attacked(attack.topology, draw, plan, *(["--spread"] if attack.broken else []))
    return Findings(seen.counts, seen.faults, seen.wrong)
