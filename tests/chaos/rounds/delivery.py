"""What reaches a browser, and credentials that change meanwhile."""

from __future__ import annotations

import time
from collections import Counter

from cachebus.testing.server import PrivateServer
from tests.chaos.harness import Attack, Findings
from tests.support.changing_credentials import Answer, Rotation, Tokens, load
from tests.support.resume_schedules import Forgetful as PublishOnly
from tests.support.resume_schedules import Gate, Schedule

SLICE_S = 2.0
"""How long a round goes on."""


async def resume(attack: Attack) -> Findings:
    """Publish, trim, flush, fail over, restart gateways and reconnect browsers in any order, without a server."""
    findings, until_s = Findings(), time.monotonic() + SLICE_S
    while time.monotonic() < until_s and len(findings.wrong) < 3:
        seed = attack.draw.randrange(1 << 40)
        played = Schedule(seed, PublishOnly if attack.broken else Gate)
        try:
            await played.play()
        except AssertionError as found:
            findings.wrong.append(f"schedule {seed}: {str(found).splitlines()[0]}")
        findings.counts += Counter(
            schedules=1,
            resumed=sum(browser.resumed for browser in played.browsers),
            resets=sum(browser.resets for browser in played.browsers),
        )
    return findings


class Frozen(Rotation):
    """A program that was given its password once."""

    async def token(self) -> Answer:
        """Return what was valid at first."""
        first = await super().token()
        self._first: Answer = getattr(self, "_first", first)
        return self._first


async def credentials(attack: Attack) -> Findings:
    """Replace the password, or let tokens expire, under load: ACL users change, and connections are closed."""
    draw, broken = attack.draw, attack.broken
    with PrivateServer.start() as server:
        rotation = Frozen(server, 0.3, draw) if broken else Rotation(server, 1.0, draw)
        kind = rotation if broken or draw.random() < 0.5 else Tokens(server, 3.0)
        seen = await load(server, kind, 1.0 if broken else 4.0)
    counts = Counter(reads=seen.reads, events=seen.published, messages=seen.sent, gaps=seen.gaps)
    wrong = seen.errors[:3]
    if seen.handled != seen.published:
        wrong.append(f"{seen.published} events published, {seen.handled} handled")
    if seen.heard != seen.sent and not seen.gaps:
        wrong.append(f"{seen.sent} messages sent, {seen.heard} heard, and no gap was told")
    return Findings(counts, Counter({"credentials changed": seen.changes, "connections closed": seen.closed}), wrong)
