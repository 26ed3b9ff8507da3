"""What an analysis says of traffic whose truth is known: curves against exact ones, planted mistakes, nothing else.

Larger forms of the same: `python -m benchmarks.advice`.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator

import msgspec
import pytest

from benchmarks.recorded import ITEM, PLANTED, Change, Deployment, Read, modelled, planted, zipf
from benchmarks.traffic_model import TRADING, ModelView
from cachebus import Client, ConfigurationError
from cachebus.cache.foresight.recording import Recording, Wanted
from cachebus.monitoring.advice import curves
from cachebus.monitoring.advice.advising import duration
from cachebus.monitoring.advice.analysis import analysed, computed, newest_report, report_key
from cachebus.monitoring.advice.computing import Analysable, report_of
from cachebus.monitoring.advice.endings import ends_of, estimated
from cachebus.monitoring.advice.report import Report
from cachebus.monitoring.advice.trace import Trace
from tests.support.memory_tier import hits_of_memory

SECONDS = 600.0


def recorded(
    traffic: Iterable[Read | Change], views: dict[str, ModelView], *, processes: int = 1, rate: float = 1.0
) -> Recording:
    """Return what the processes of a modelled deployment would have recorded."""
    return Deployment(views, processes=processes, rate=rate, entries=1000, seconds=SECONDS).run(traffic)


def report(recording: Recording, **more: object) -> Report:
    """Return the report of a recording."""
    return report_of(Analysable(recording=recording, at_ms=0.0, version="", **more))  # type: ignore[arg-type] # of a test


def hits_by_size(trace: Trace) -> dict[int, float]:
    """Return the points of the memory curve."""
    found = curves.memory_curve(trace)
    assert found is not None
    return {point.entries: point.hits.median for point in found.curve.points}


def test_memory_in_miniature_is_like_the_whole() -> None:
    """An eighth of the keys: 1 % off on average, 2 % at most, against the whole memory tier on all reads."""
    traffic = list(zipf(keys=5_000, reads=30_000, seconds=SECONDS, exponent=0.9))
    exact = hits_by_size(Trace(recorded(traffic, ITEM)))
    assert abs(exact[1000] - hits_of_memory((read.key for read in traffic), 1000) / len(traffic)) < 0.001
    mini = hits_by_size(Trace(recorded(traffic, ITEM, rate=1 / 8)))
    errors = [abs(exact[size] - mini[size]) for size in mini]
    assert len(errors) >= 5
    assert sum(errors) / len(errors) <= 0.01
    assert max(errors) <= 0.02


def test_ttls_tried_on_some_keys_say_what_all_would(monkeypatch: pytest.MonkeyPatch) -> None:
    """512 keys of each view: 2 % off at most, at each TTL."""
    traffic = modelled("trading", users=3_000, seconds=SECONDS, begin_s=9 * 3600, processes=1)
    trace = Trace(recorded(traffic, TRADING))
    monkeypatch.setattr(curves, "KEYS_OF_VIEW", 512)
    some = curves.ttl_shares(trace)
    monkeypatch.setattr(curves, "KEYS_OF_VIEW", 10**9)
    exact = curves.ttl_shares(trace)
    pairs = [pair for name in exact for pair in zip(exact[name], some[name], strict=True)]
    assert len(pairs) >= 25
    assert max(abs(one.hits.whole - other.hits.whole) for one, other in pairs) <= 0.02


def test_a_sample_says_how_much_ends_unread() -> None:
    """Of a quarter of 2,000 keys the shares that end unread, and by invalidation, are those of all, 2 % at most."""
    draw = random.Random(6)  # noqa: S311 - the same traffic every time
    traffic: list[Read | Change] = []
    for number in range(8_000):
        thread = draw.randrange(2_000)
        at_s, tag = number * SECONDS / 8_000, f"forum:{thread % 50}"
        traffic.append(Read(at_s, 0, "thread:{thread}", f"thread:{thread}", "", (tag,)))
        if number % 100 == 0:
            traffic.append(Change(at_s, (f"forum:{draw.randrange(50)}",)))
    traces = [Trace(recorded(traffic, PLANTED, rate=rate)) for rate in (1.0, 0.25)]
    whole, sample = (estimated(trace, ends_of(trace).views[0]) for trace in traces)
    assert whole.ended > 2_000
    for what in ("unread", "invalidated_unread"):
        assert abs(getattr(whole, what) / whole.ended - getattr(sample, what) / sample.ended) <= 0.02


def test_recordings_of_three_processes_make_one() -> None:
    """The same reads in three processes or in one: the same TTLs, shares and advice, within 1 %."""
    one, three = (report(recorded(planted(SECONDS, count), PLANTED, processes=count)) for count in (1, 3))
    assert three.recording.processes == 3
    for alone, together in zip(one.views, three.views, strict=True):
        assert (alone.name, alone.reads, alone.ended) == (together.name, together.reads, together.ended)
        for point, other in zip(alone.ttl, together.ttl, strict=True):
            assert abs(point.hits - other.hits) <= 0.01
    assert [advice.sentence for advice in one.advice] == [advice.sentence for advice in three.advice]


def test_each_planted_mistake_is_named_and_nothing_else() -> None:
    """A tag that reaches too far, a view that is warmed for nobody, a TTL that is too short; dearest first."""
    found = report(recorded(planted(SECONDS), PLANTED, processes=3))
    assert [(advice.kind, advice.subject) for advice in found.advice] == [
        ("tag", "forum:{forum}"),
        ("unread", "digest:{user_id}"),
        ("ttl", "quote:{symbol}"),
    ]
    costs = [advice.database_s for advice in found.advice]
    assert costs == sorted(costs, reverse=True)
    assert costs[-1] > 0
    tag, digest, quote = found.advice
    assert "tag `thread:{thread}` by what changes" in tag.sentence
    reached = next(each for each in found.tags if each.template == "forum:{forum}")
    assert 0.85 < reached.reloads_same / reached.reloads < 1  # one in twenty invalidations was needed
    assert "read by nobody" in digest.sentence
    assert quote.sentence.startswith("`quote:{symbol}`: ttl 5s → ")
    assert "must invalidate" in quote.caution
    assert msgspec.json.decode(msgspec.json.encode(found), type=Report) == found


def test_without_enough_reads_or_agreement_there_is_no_advice() -> None:
    """A hundred reads; random reads; a view that was busy in one half only."""
    few = report(recorded(zipf(keys=50, reads=100, seconds=SECONDS, exponent=1.0), ITEM))
    assert few.advice == []
    assert few.silent == "100 sampled reads say too little; 2,000 are needed: record longer, or when more is read"
    assert few.memory is None

    def busy_later() -> Iterator[Read]:
        draw = random.Random(5)  # noqa: S311 - the same traffic every time
        quote = "quote:{symbol}"
        for number in range(6_000):
            at_s = SECONDS * (number / 6_000)
            symbol = draw.randrange(10) if at_s > SECONDS / 2 else number
            yield Read(at_s, 0, quote, f"quote:{symbol}", "", (f"symbol:{symbol}",))

    assert report(recorded(busy_later(), PLANTED)).advice == []


def test_a_ttl_longer_than_the_recording_is_judged_by_the_counters() -> None:
    """Loads soon after the value had expired, hour by hour, say what twice the TTL would save."""
    hour = {"l1_hits": 500, "loads": 500, "reloaded": 300, "load_ms": 50_000}
    hours = {at * 3600: {"item:{id}": hour} for at in range(24)}
    recording = recorded(zipf(keys=500, reads=4_000, seconds=SECONDS, exponent=1.0), ITEM)
    [advice] = report(recording, hours=hours).advice
    assert advice.sentence == (
        "`item:{id}`: ttl 1h → 2h would save up to 720 s of loads a day: "
        "60 % of its loads come within a ttl after the value expired"
    )
    assert "unannounced" in advice.caution
    uneven = {at: {"item:{id}": {**hour, "reloaded": 300 if at < 12 * 3600 else 0}} for at in hours}
    assert report(recording, hours=uneven).advice == []


def test_hours_and_releases_are_told_from_the_counters() -> None:
    """Each hour with its hits and what ended unread, tags left out; a release from its first whole hour on."""
    counters = {"l1_hits": 60, "l2_hits": 20, "loads": 20, "warms": 5, "load_ms": 500}
    lives = {"ended expired": 8, "unread expired": 6, "ended invalidated": 2}
    hours = {at * 3600: {"item:{id}": counters | lives, "(tag) all": {"met": 9}} for at in range(3)}
    hours[7200] = {"item:{id}": {"l1_hits": 100}}
    recording = recorded(zipf(keys=50, reads=100, seconds=SECONDS, exponent=1.0), ITEM)
    job = Analysable(
        recording=recording, hours=hours, releases=[("b", 5_000_000.0), ("a", 0.0)], at_ms=10_800_000.0, version=""
    )
    found = report_of(job)
    first, _, last = found.hours
    assert (first.reads, first.hits, first.loads, first.load_ms) == (100, 0.8, 25, 500)
    assert (first.ended, first.ended_unread) == (10, 6)
    assert (last.reads, last.hits) == (100, 1.0)
    assert [(each.name, each.reads, each.hits) for each in found.releases] == [("b", 100, 1.0), ("a", 100, 0.8)]


async def test_a_report_is_made_in_a_child_process_and_kept(client: Client) -> None:
    """With the hours and releases that are known; a recording it cannot read is one sentence; it has a TTL."""
    assert await newest_report(client) is None
    recording = recorded(planted(SECONDS), PLANTED, processes=3)
    found = await analysed(client, recording)
    assert await newest_report(client) == found
    assert 0 < await client.store.call("TTL", report_key(client)) <= 8 * 86_400
    broken = Recording(recording.wanted, [recording.chunks[0][:-9]])
    with pytest.raises(ConfigurationError, match=r"^recording: damaged: .*; record again$"):
        await computed(Analysable(recording=broken, at_ms=0.0, version=""))
    await client.store.call("SET", report_key(client), '{"schema":0}', "EX", 60)
    assert await newest_report(client) is None


def test_an_empty_recording_is_silent() -> None:
    """Nobody read, or no process answered."""
    wanted = Wanted(id="1", secret="", rate=1.0, from_us=0, until_us=10**7, asked_by="a test")
    found = report(Recording(wanted, []))
    assert (found.advice, found.views, found.recording.processes) == ([], [], 0)
    assert found.silent


def test_times_are_written_as_settings_are() -> None:
    """So that they can be pasted."""
    assert [duration(ms) for ms in (500, 1_500, 5_000, 80_000, 300_000, 5_400_000, 86_400_000)] == [
        "500ms", "1.5s", "5s", "80s", "5m", "1h30m", "1d",
    ]  # fmt: skip
