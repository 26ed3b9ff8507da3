"""A browser that comes back gets every message once and in order, or is told that it did not."""

from __future__ import annotations

import json
import random
from collections.abc import Callable

import pytest

from cachebus.feed import FeedRecord
from gateway.hub import Client, Hub
from gateway.message import Position
from gateway.recovery import Recovery
from gateway.topics import Rules
from gateway.window import Window
from tests.gateway.feed_model import FeedModel

SCHEDULES = 10_000
STEPS = 30
TOPICS = ["a", "b"]


class Gate:
    """A gateway process: hub and recovery, and where its reader is."""

    def __init__(self, model: FeedModel, window: int) -> None:
        self.model = model
        self.hub = Hub(Rules(TOPICS), lambda: 0.0, lambda: 1, window=Window(most=window))
        self.recovery = Recovery(self.hub, model.feed)
        self.hub.begin(model.records[-1].id if model.records else "", "")

    async def step(self) -> None:
        """Hear what is new."""
        page = await self.model.step(self.hub.window.newest)
        if page.records or not page.recovered:
            self.hub.receive(page, "9")


class Browser:
    """What `client.js` does, and a check of each message."""

    def __init__(self, everything: Callable[[], set[str]]) -> None:
        self.everything = everything
        self.last: str | None = None
        self.known: set[str] = set()
        """What the page shows: by messages, or because it read everything anew."""
        self.got: list[str] = []
        self.client: Client | None = None
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
        items = self.client.outbox.take(0.0)
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


async def play(seed: int) -> tuple[int, int]:
    """Play one schedule; returns how often a client resumed, and how often it was reset."""
    chance = random.Random(seed)
    model = FeedModel()
    published: list[FeedRecord] = []
    gates = [Gate(model, chance.choice([2, 5, 50])) for _ in range(2)]
    browsers = [Browser(lambda: {record.id for record in published}) for _ in range(2)]

    def publish() -> None:
        published.append(model.publish(chance.choice(TOPICS)))

    def lose(count: int) -> None:
        for record in model.fail_over(count):
            published.remove(record)

    def meanwhile() -> None:
        if chance.random() < 0.2:
            publish()
        if chance.random() < 0.05:
            model.trim(chance.randrange(4))

    model.during_read = meanwhile
    for _ in range(STEPS):
        browser, gate = chance.choice(browsers), chance.randrange(2)
        match chance.choices(range(8), [30, 20, 20, 15, 6, 3, 2, 4])[0]:
            case 0:
                publish()
            case 1:
                await gates[gate].step()
            case 2 if browser.client is None:
                await browser.connect(gates[gate])
            case 2:
                browser.read(chance.choice([1, 3, 99]))
            case 3:
                browser.drop()
            case 4:
                model.trim(chance.randrange(6))
            case 5:
                gates[gate].hub.heartbeat()
            case 6 if chance.random() < 0.5:
                model.records.clear()
            case 6:
                lose(min(len(model.records), chance.randrange(3)))
            case _:  # the gateway is killed and started again
                for one in browsers:
                    if one.gate is gates[gate]:
                        one.drop()
                gates[gate] = Gate(model, 5)
    model.during_read = lambda: None
    await settle(gates, browsers, model)
    for browser in browsers:
        missing = [record.id for record in published if record.topic == "a" and record.id not in browser.known]
        assert not missing, f"a silent hole, seed {seed}: {missing}"
    return sum(browser.resumed for browser in browsers), sum(browser.resets for browser in browsers)


async def settle(gates: list[Gate], browsers: list[Browser], model: FeedModel) -> None:
    """Let everyone connect, hear and read what there is."""
    for browser in browsers:
        browser.read(99)
        if browser.client is None:
            await browser.connect(gates[0])
    for gate in gates:
        while gate.hub.window.newest != (model.records[-1].id if model.records else ""):
            await gate.step()
    for browser in browsers:
        browser.read(99_999)


@pytest.mark.parametrize("part", range(4))
async def test_random_schedules(part: int) -> None:
    """Publish, trim, flush, fail over, restart, reconnect anywhere, in any order: no silent hole, nothing twice."""
    resumed = resets = 0
    for seed in range(part * SCHEDULES // 4, (part + 1) * SCHEDULES // 4):
        one, other = await play(seed)
        resumed, resets = resumed + one, resets + other
    # Both happen often, so that neither "always reset" nor "never reset" would pass.
    assert resumed > SCHEDULES / 8
    assert resets > SCHEDULES / 8
