"""Random schedules of gateways and browsers over one feed, without a server, and what a browser must see."""

from __future__ import annotations

import json
import random
from collections.abc import Callable

from cachebus.bus.feed import FeedRecord, Page
from cachebus.gateway.delivery.hub import Follower, Hub
from cachebus.gateway.delivery.replay_window import ReplayWindow
from cachebus.gateway.delivery.resume import Recovery
from cachebus.gateway.protocol import Position
from cachebus.gateway.topics import Rules
from tests.support.feed_model import FeedModel

STEPS = 30
TOPICS = ["a", "b"]


class Gate:
    """A gateway process: hub and recovery, and where its reader is."""

    def __init__(self, model: FeedModel, window: int) -> None:
        self.model = model
        self.hub = Hub(Rules(TOPICS), lambda: 0.0, lambda: 1, window=ReplayWindow(most=window))
        self.recovery = Recovery(self.hub, model.feed)
        self.hub.begin(model.records[-1].id if model.records else "", "")
        self._hearing = False

    async def step(self) -> None:
        """Hear what is new. A gateway has one reader: nothing else of it hears meanwhile."""
        if self._hearing:
            return
        self._hearing = True
        page = self.heard(await self.model.step(self.hub.window.newest))
        self._hearing = False
        if page.records or not page.recovered:
            self.hub.receive(page, "9")

    def heard(self, page: Page) -> Page:
        """Return what it has of a page of the feed: all of it."""
        return page


class Forgetful(Gate):
    """A gateway that hears only what is said while it listens, as by PUBLISH: what would be without the feed."""

    def heard(self, page: Page) -> Page:
        """Miss all but the newest record."""
        return page._replace(records=page.records[-1:])


class Browser:
    """What `client.js` does, and a check of each message."""

    def __init__(self, everything: Callable[[], set[str]]) -> None:
        self.everything = everything
        self.last: str | None = None
        self.known: set[str] = set()
        """What the page shows: by messages, or because it read everything anew."""
        self.got: list[str] = []
        self.client: Follower | None = None
        self.gate: Gate | None = None
        self.resumed = self.resets = 0

    async def connect(self, gate: Gate) -> None:
        """Come, or come back."""
        client = gate.hub.new_client(7, "ref")
        await gate.recovery.attach(client, ["a"], self.last)
        self.client, self.gate = client, gate

    def drop(self) -> None:
        """Lose the connection with whatever was on its way."""
        if self.client is not None and self.gate is not None:
            self.gate.hub.detach(self.client)
        self.client = self.gate = None

    def read(self, most: int) -> None:
        """Take up to *most* messages; the connection then breaks if there were more."""
        if self.client is None:
            return
        items = self.client.queue.take(0.0)
        for item in items[:most]:
            said = json.loads(item.text)
            if said["topic"] is None:
                recovered = said["data"].get("recovered")
                if recovered is False:
                    self.resets += 1
                    self.known |= self.everything()
                    self.got.clear()
                self.resumed += recovered is True
            else:
                assert said["id"] not in self.got, "a message came twice"
                before = Position.of(self.got[-1]) if self.got else None
                here = Position.of(said["id"])
                assert here is not None
                assert before is None or before.epoch != here.epoch or before.clock < here.clock, "out of order"
                self.got.append(said["id"])
                self.known.add(said["id"])
            self.last = said["id"] or self.last
        if len(items) > most:
            self.drop()


class Schedule:
    """One random schedule: two gateways, two browsers, one feed."""

    def __init__(self, seed: int, gate: type[Gate] = Gate) -> None:
        self.chance = random.Random(seed)  # noqa: S311 - repeatable
        self._gate = gate
        self.model = FeedModel()
        self.model.during_read = self.meanwhile
        self.published: list[FeedRecord] = []
        self.gates = [gate(self.model, self.chance.choice([2, 5, 50])) for _ in range(2)]
        self.browsers = [Browser(self.everything) for _ in range(2)]
        self.actions = {
            self.publish: 30,
            self.hear: 20,
            self.use: 25,
            self.drop: 15,
            self.trim: 6,
            self.beat: 10,
            self.lose: 2,
            self.restart: 4,
        }

    def everything(self) -> set[str]:
        """Return what a page shows that reads everything now."""
        return {record.id for record in self.published}

    async def play(self) -> None:
        """Do something, many times; then let everyone connect, hear and read, and compare."""
        for action in self.chance.choices([*self.actions], [*self.actions.values()], k=STEPS):
            await action()
        self.model.during_read = None
        await settle(self.gates, self.browsers)
        for browser in self.browsers:
            missing = [one.id for one in self.published if one.topic == "a" and one.id not in browser.known]
            assert not missing, f"a silent hole: {missing}"

    async def publish(self) -> None:
        self.published.append(self.model.publish(self.chance.choice(TOPICS)))

    async def hear(self) -> None:
        await self.chance.choice(self.gates).step()

    async def use(self) -> None:
        browser = self.chance.choice(self.browsers)
        if browser.client is None:
            await browser.connect(self.chance.choice(self.gates))
        else:
            browser.read(self.chance.choice([1, 3, 99]))

    async def drop(self) -> None:
        self.chance.choice(self.browsers).drop()

    async def trim(self) -> None:
        self.model.trim(self.chance.randrange(1, 6))

    async def beat(self) -> None:
        self.chance.choice(self.gates).hub.heartbeat()

    async def lose(self) -> None:
        """Flush the server, or fail over to one that has not heard the newest.

        An empty feed has no epoch: who knows it as empty must hear its first record to notice that it was emptied
        again. A reader that waits in XREAD does.
        """
        while self.model.records and (empty := [gate for gate in self.gates if gate.hub.window.newest == ""]):
            for gate in empty:  # what is published while one hears, the others must hear too
                await gate.step()
        if self.chance.random() < 0.5:
            self.model.records.clear()
        else:
            for record in self.model.fail_over(min(len(self.model.records), self.chance.randrange(3))):
                self.published.remove(record)

    async def restart(self) -> None:
        """Kill a gateway and start it again."""
        at = self.chance.randrange(2)
        for browser in self.browsers:
            if browser.gate is self.gates[at]:
                browser.drop()
        self.gates[at] = self._gate(self.model, 5)

    async def meanwhile(self) -> None:
        """Go on while a gateway waits for a reply."""
        if self.chance.random() < 0.2:
            await self.publish()
        if self.chance.random() < 0.2:
            await self.hear()
        if self.chance.random() < 0.05:
            self.model.trim(self.chance.randrange(1, 4))


async def settle(gates: list[Gate], browsers: list[Browser]) -> None:
    """Let everyone connect, hear and read what there is."""
    for browser in browsers:
        browser.read(99)
        if browser.client is None:
            await browser.connect(gates[0])
    for gate in gates:
        for _ in range(3):
            await gate.step()
    for browser in browsers:
        browser.read(99_999)
