"""The hub without sockets: what a slow client is sent, what a heartbeat says, who may follow what."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cachebus.bus.feed import FeedRecord, Page
from cachebus.errors import CannotStart, ConfigurationError
from cachebus.gateway.delivery.client_queue import MOST_BYTES, MOST_WAITING
from cachebus.gateway.delivery.hub import STALLED_S, Close, Follower, Hub
from cachebus.gateway.delivery.replay_window import ReplayWindow
from cachebus.gateway.protocol import MOST_TOPICS, Malformed, Position, message_of, read_frame
from cachebus.gateway.settings import GatewaySettings
from cachebus.gateway.topics import Rules


class Told:
    """A hub on a clock of its own, and a hand that feeds it."""

    def __init__(self) -> None:
        self.now = 100.0
        self.hub = Hub(Rules(["market:*", "news"]), lambda: self.now, lambda: 5)
        self.clock = 1000
        self.hub.begin("7-1000", "9")

    def publish(self, topic: str, data: Any = 1) -> str:
        """Hand the hub one more record; return its id."""
        before, self.clock = f"7-{self.clock}", self.clock + 1
        body = {"id": f"7-{self.clock}", "ts": 1, "fresh_after": "10", "topic": topic, "type": "t", "data": data}
        record = FeedRecord(f"7-{self.clock}", before, topic, json.dumps(body, separators=(",", ":")).encode())
        self.hub.receive(Page([record], recovered=True, last=record.id))
        return record.id

    def client(self, *topics: str, after: str | None = None) -> Follower:
        """Attach a client of user 42, and take its welcome."""
        client = self.hub.new_client(42, "ref")
        self.hub.attach(client, topics, after)
        return client

    def take(self, client: Follower) -> list[dict[str, Any]]:
        """Return what a client is sent, and have it taken."""
        taken = [json.loads(item.text) for item in client.queue.take(self.now)]
        client.queue.progress(self.now, done=True)
        return taken


def test_a_message_is_encoded_once() -> None:
    """All clients are handed one and the same text."""
    told = Told()
    clients = [told.client("news") for _ in range(3)]
    for client in clients:
        told.take(client)
    told.publish("news")
    texts = [client.queue.take(0)[0].text for client in clients]
    assert texts[0] is texts[1] is texts[2]


def test_a_slow_client_gets_the_newest_of_each_topic_and_is_told() -> None:
    """Beyond the limit only the newest message of a topic waits; `recovered: false` names the topics left out."""
    told = Told()
    client = told.client("market:A", "market:B", "news")
    told.take(client)
    first = told.publish("market:B")
    ids = [told.publish("market:A") for _ in range(2 * MOST_WAITING)]
    assert len(client.queue) == 2
    skipped, other, newest = told.take(client)
    assert skipped["type"] == "gateway.skipped"
    assert skipped["id"] is None  # whoever breaks off here resumes before what was left out
    assert skipped["data"] == {"recovered": False, "topics": {"market:A": 2 * MOST_WAITING - 1}}
    assert (other["id"], newest["id"]) == (first, ids[-1])
    told.publish("news")
    assert [said["topic"] for said in told.take(client)] == ["news"]


def test_a_client_that_resumes_gets_everything_at_once() -> None:
    """What was missed is not thinned out, however much; the limit is for what comes on top."""
    told = Told()
    ids = [told.publish("news") for _ in range(3 * MOST_WAITING)]
    client = told.client("news", after="7-1000")
    ids.append(told.publish("news"))
    assert [said["id"] for said in told.take(client)][1:] == ids


def test_what_does_not_fit_even_so_closes() -> None:
    """Messages too large to keep one of each topic: closed with 4008."""
    told = Told()
    client = told.client("market:A", "market:B")
    told.publish("market:A", "x" * (MOST_BYTES // 2))
    assert client.closing is None
    told.publish("market:B", "x" * (MOST_BYTES // 2))
    assert client.closing is Close.SLOW
    assert Close.SLOW.code == 4008


def test_a_client_that_takes_nothing_is_closed() -> None:
    """After 20 s with something waiting and nothing taken: 4008. Who has nothing to take may wait for ever."""
    told = Told()
    stalled, reading, idle = told.client("news"), told.client("news"), told.client()
    for client in (stalled, reading, idle):
        told.take(client)
    told.publish("news")
    told.now += STALLED_S - 1
    told.take(reading)
    told.publish("news")
    told.now += 2
    told.hub.sweep()
    assert [client.closing for client in (stalled, reading, idle)] == [Close.SLOW, None, None]


def test_a_send_that_does_not_end_counts_as_taking_nothing() -> None:
    """What was taken out but never sent is time that passes; each message sent begins it anew."""
    told = Told()
    client = told.client("news")
    client.queue.take(told.now)
    told.now += STALLED_S - 1
    client.queue.progress(told.now, done=False)
    told.now += STALLED_S - 1
    told.hub.sweep()
    assert client.closing is None
    told.now += 2
    told.hub.sweep()
    assert client.closing is Close.SLOW


def test_a_heartbeat_says_where_the_feed_is() -> None:
    """A client whose topics are silent learns the newest id, so that it does not fall off the feed's end."""
    told = Told()
    client = told.client("news")
    told.take(client)
    newest = told.publish("market:A")
    told.hub.heartbeat()
    (beat,) = told.take(client)
    assert (beat["type"], beat["id"], beat["fresh_after"]) == ("gateway.heartbeat", newest, "10")


def test_that_the_feed_is_silent_is_told_once_and_to_who_comes_meanwhile() -> None:
    """Each hears of it when it begins, or after its welcome; and when it ends."""
    told = Told()
    early = told.client("news")
    for _ in range(3):
        told.hub.cut_off(away=True)
    late = told.client("news")
    told.hub.cut_off(away=False)
    for client in (early, late):
        types = [said["type"] for said in told.take(client)]
        assert types == ["gateway.welcome", "gateway.away", "gateway.back"]


def test_a_reset_drops_what_waits_and_says_where_to_begin() -> None:
    """After a hole nothing older is sent: `recovered: false`, with the clock to read after."""
    told = Told()
    client = told.client("news")
    told.take(client)
    told.publish("news")
    told.hub.receive(Page([], recovered=False, last="8-5"), "77")
    (reset,) = told.take(client)
    assert (reset["type"], reset["data"]["recovered"]) == ("gateway.reset", False)
    assert (reset["id"], reset["fresh_after"]) == ("8-5", "77")


def test_a_record_that_is_not_ours_is_a_hole() -> None:
    """Whatever else is written to the feed, clients are told that they may have missed something."""
    told = Told()
    client = told.client("news")
    told.take(client)
    told.hub.receive(Page([FeedRecord("x", "7-1000", "news", b"\xff")], recovered=True, last="x"))
    assert told.take(client)[0]["type"] == "gateway.reset"


def test_topics_have_an_owner_or_a_rule() -> None:
    """A user's own topics, and those a pattern makes public; nothing that only looks alike."""
    rules = Rules(["market:*", "news"])
    allowed = ["user:42", "user:42:orders", "market:AAPL", "news"]
    refused = ["user:4", "user:421", "user:", "user", "market:", "market", "newsroom", "", "x" * 300, "market:\n"]
    assert [topic for topic in allowed + refused if rules.refusal(topic, 42) is None] == allowed
    assert rules.refusal("user:a:b", "a") is None
    assert rules.refusal("user:a:b", "a:b") is not None  # it could be user a's
    for pattern in ("*", "user:*", "mark*et", ""):
        with pytest.raises(ConfigurationError):
            Rules([pattern])


def test_a_client_follows_so_many_topics() -> None:
    """One more than a hundred is refused by name."""
    told = Told()
    client = told.client(*[f"market:{number}" for number in range(MOST_TOPICS + 1)])
    error = told.take(client)[-1]["data"]
    assert (error["code"], error["topic"]) == ("too_many_topics", f"market:{MOST_TOPICS}")


def test_the_window_keeps_so_many() -> None:
    """What fell out of memory is not answered from memory; its successor is."""
    window = ReplayWindow("7-0", most=2)
    for clock in (1, 2, 3):
        body = b'{"id":"7-%d","fresh_after":"1"}' % clock
        message = message_of(FeedRecord(f"7-{clock}", f"7-{clock - 1}", "t", body))
        assert message is not None
        window.add(message)
    assert window.after("7-0") is None
    assert [[message.id for message in window.after(f"7-{clock}") or []] for clock in (1, 2, 3)] == [
        ["7-2", "7-3"],
        ["7-3"],
        [],
    ]


def test_frames_and_ids_that_cannot_be_read() -> None:
    """They are refused, whatever they are."""
    for text in ("", "[]", "{}", '{"op":"hello","token":"x"}', '{"op":"subscribe"}', "null", '{"op":"hello","last":7}'):
        with pytest.raises(Malformed):
            read_frame(text)
    for identity in ("", "-", "1-", "-1", "1-x", "1-" + "9" * 30, "1-²", "a-1"):
        assert Position.of(identity) is None


def test_settings_name_every_error_at_once() -> None:
    """Each bad variable is a line; none hides another."""
    with pytest.raises(CannotStart) as problems:
        GatewaySettings.from_environment(
            {
                "PORT": "99999",
                "REDIS_URL": "http://x",
                "GATEWAY_ORIGINS": "app.example.com",
                "GATEWAY_PUBLIC_TOPICS": "*",
                "GATEWAY_DRAIN": "soon",
            }
        )
    lines = str(problems.value).splitlines()
    assert [line.partition(":")[0] for line in lines] == [
        "REDIS_URL",
        "GATEWAY_ORIGINS",
        "GATEWAY_PUBLIC_TOPICS",
        "GATEWAY_DRAIN",
        "PORT",
    ]
    assert GatewaySettings.from_environment({"PORT": ""}).port == 8080
    (told,) = GatewaySettings.from_environment({"GATEWAY_PUBLIC_TOPIC": "news:*"}).unknown
    assert told == "GATEWAY_PUBLIC_TOPIC: is not a setting; did you mean GATEWAY_PUBLIC_TOPICS?"


def test_it_listens_to_the_world_only_where_a_platform_says_so() -> None:
    """A port given from outside is there to be reached; on somebody's own machine nobody else gets in."""
    assert GatewaySettings.from_environment({}).host == "127.0.0.1"
    assert GatewaySettings.from_environment({"PORT": "5000"}).host == "0.0.0.0"  # noqa: S104 - what is asked for
    assert GatewaySettings.from_environment({"PORT": "5000", "HOST": "127.0.0.1"}).host == "127.0.0.1"
