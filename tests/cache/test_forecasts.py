"""Forecasts without a clock or a server: what is expected, what it learns, what it loads, and what it may waste."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from benchmarks.predict import by_day, forecaster, simulated, simulated_views, total
from benchmarks.traffic_model import SHOP, TRADING, Shape, shop, shuffled, trading
from cachebus.cache.foresight.prediction.contexts import Context, contexts_after_invalidation, contexts_after_read
from cachebus.cache.foresight.prediction.counts import SharedCounts
from cachebus.cache.foresight.prediction.decision import MEMORY, UNKNOWN, Budget, Cell, Totals, TrackRecord, threshold
from cachebus.cache.foresight.prediction.forecaster import Forecaster
from cachebus.cache.foresight.prediction.simulation import (
    SimulatedChange,
    SimulatedOutcome,
    SimulatedRead,
    SimulatedView,
    Simulation,
)

FIRST, THEN = SimulatedView("cart:{user_id}", 300, True), SimulatedView("orders:{user_id}", 300, True)
WEEKS = Shape(users=200, days=14)


def visits(
    number: int, *, then: Callable[[int], bool] = lambda _: True, user: int = 1, start: int = 0
) -> Iterator[SimulatedRead]:
    """Yield visits an hour apart: the cart, and half a minute later the orders, where *then* says so."""
    for visit in range(start, start + number):
        at = visit * 3600.0
        yield read(at, FIRST, user)
        if then(visit):
            yield read(at + 30, THEN, user)


def read(at: float, view: SimulatedView, user: int) -> SimulatedRead:
    """Return a read of a user's own."""
    key = view.name.replace("{user_id}", str(user))
    return SimulatedRead(at, view.name, user, key, (f"user:{user}",), 100.0)


def played(*events: SimulatedRead | SimulatedChange, by: Forecaster | None = None) -> SimulatedOutcome:
    """Return what comes of *events*."""
    return Simulation([FIRST, THEN], [by or forecaster()]).run(events)


def test_what_follows_is_loaded_ahead_once_it_has_followed_often_enough() -> None:
    """Thirty times it is only watched; then nobody waits for it any more."""
    few, many = played(*visits(20)), played(*visits(100))
    assert few.ahead == 0
    stats = many.views[THEN.name]
    assert stats.ahead_used > 50
    assert stats.ahead_wasted == 0
    assert stats.ahead_saved_ms == pytest.approx(99 * stats.ahead_used)
    assert many.views[FIRST.name].ahead_loads == 0  # what precedes it was long ago: an hour is not "within its TTL"


def test_what_never_follows_is_never_loaded() -> None:
    """Nor what follows one time in three: half of the loads would have to be used."""
    assert played(*visits(300, then=lambda visit: visit % 3 == 0)).ahead == 0


def test_in_shadow_everything_is_counted_and_nothing_loaded() -> None:
    """The same path, but for the load."""
    outcome = played(*visits(100), by=forecaster(live=False))
    assert outcome.ahead == 0
    assert outcome.views[THEN.name].shadow_right > 50


def test_what_is_invalidated_before_it_is_read_is_wasted() -> None:
    """The context learns that; and another one, that what the user has changed the user reads again."""
    events: list[SimulatedRead | SimulatedChange] = []
    for event in visits(400):
        events.append(event)
        if event.at > 40 * 3600 and event.view == FIRST.name:
            events.append(SimulatedChange(event.at + 5, ("user:1",), own=True))
    by = forecaster()
    outcome = played(*events, by=by)
    assert 0 < outcome.views[THEN.name].ahead_wasted <= 0.1 * outcome.loads + 1
    assert by.cells[Context(FIRST.name, THEN.name, "0", "1h")].chance < 0.4
    assert by.cells[Context("!", THEN.name, "own", "2h")].chance > 0.9
    assert outcome.views[THEN.name].ahead_used > 200


def test_a_read_that_would_have_been_a_hit_says_nothing() -> None:
    """Somebody else keeps the value warm: to load it ahead would save nobody anything."""
    events = sorted((*visits(100), *(read(visit * 3600.0 + 20, THEN, 1) for visit in range(100))), key=lambda e: e.at)
    outcome = played(*(e if e.at % 3600 != 20 else e._replace(identity=None) for e in events))
    assert outcome.ahead == 0


def test_nothing_is_learnt_of_one_user_that_is_loaded_for_a_stranger() -> None:
    """A newcomer profits from the counts of all, once the call is the newcomer's own."""
    by = forecaster()
    simulation = Simulation([FIRST, THEN], [by])
    simulation.run(visits(100))
    before = simulation.outcome.ahead
    simulation.run([read(400_000, FIRST, 2), read(400_100, FIRST, 3)])
    assert simulation.outcome.ahead == before
    simulation.run([*visits(1, user=2, start=120), *visits(1, user=2, start=121)])
    assert simulation.outcome.ahead == before + 1


def test_a_context_forgets() -> None:
    """After a change of habits the newest outcomes soon say more than all those before."""
    cell = Cell(Context("a", "b", "0", "1h"))
    for _ in range(1000):
        cell.learn(True)
    assert cell.n == pytest.approx(MEMORY, rel=0.05)
    for _ in range(300):
        cell.learn(False)
    assert cell.chance < 0.4


def test_a_context_that_has_seen_little_says_nothing() -> None:
    """Thirty outcomes, and never 0 or 1 for certain."""
    cell = Cell(Context("a", "b", "0", "1h"))
    for _ in range(29):
        cell.learn(True)
    assert cell.chance == UNKNOWN
    for _ in range(3):
        cell.learn(True)
    assert 0.9 < cell.chance < 1


def test_a_load_must_pay_for_itself() -> None:
    """The dearer the database, the surer it must be; what is as fast as a hit is never loaded ahead."""
    assert threshold(None, 1.0) == 0.5
    assert threshold(100.0, 1.0) == pytest.approx(0.5025, abs=0.001)
    assert threshold(100.0, 3.0) > 0.75
    assert threshold(100.0, 0.1) == 0.4
    assert threshold(1.0, 1.0) > 1


def test_what_may_be_wasted_is_a_share_of_what_somebody_waited_for() -> None:
    """The last tokens are for the surest; a used load costs nothing."""
    budget = Budget(0.1)
    assert not budget.spend(0.99, 0.5)
    budget.earn(20)
    assert not budget.spend(0.6, 0.5)
    assert budget.spend(0.99, 0.5)
    assert budget.spend(0.99, 0.5)
    assert not budget.spend(0.99, 0.5)
    budget.give_back()
    assert budget.spend(0.99, 0.5)


def test_a_view_whose_loads_are_not_used_stops_by_itself() -> None:
    """Two hundred loads, less than half as often used as they had to be: an hour in shadow."""
    record = TrackRecord()
    said = [record.ended(float(i), 0.5, used=i % 5 == 0) for i in range(200)]
    assert said[:-1] == [None] * 199
    assert said[-1] == pytest.approx(0.2)
    assert record.suspended_until == 199 + 3600
    assert [record.ended(0.0, 0.5, used=i % 3 == 0) for i in range(400)] == [None] * 400


@pytest.mark.parametrize("context", [*contexts_after_read("a:{x}", "b|c:{y}"), *contexts_after_invalidation("a|b")])
def test_a_context_has_a_name_and_a_name_is_a_context(context: Context) -> None:
    """As it is counted in Redis; also where a template has the sign between them."""
    if "|" not in context.then or context.after == "!":
        assert Context.named(context.name) == context
    assert "None" not in str(context)


def test_the_counts_of_two_processes_add_up_to_those_of_one() -> None:
    """And each learns what the other has seen, once."""
    one, first, second = (forecaster() for _ in range(3))
    Simulation([FIRST, THEN], [one]).run(visits(60))
    shared: dict[str, Totals] = {}
    counts = [SharedCounts(first), SharedCounts(second)]
    for user, by in ((1, first), (2, second)):
        Simulation([FIRST, THEN], [by]).run(visits(30, user=user))
    for each in counts:
        new = each.unsent()
        each.sent("today", new)
        for context, totals in new.items():
            shared[context.name] = shared.get(context.name, Totals()).plus(totals)
    for each in (*counts, *counts):
        each.learn("today", shared)
    (context,) = [context for context in one.cells if context.after == FIRST.name and context.when == "1h"][:1]
    assert shared[context.name].outcomes == one.cells[context].outcomes - 1  # the first visit of each expects nothing
    for by in (first, second):
        assert by.cells[context].n == pytest.approx(one.cells[context].n, abs=1.5)
        assert by.cells[context].chance == pytest.approx(one.cells[context].chance, abs=0.02)


def test_what_was_reset_begins_again() -> None:
    """A name that is gone from Redis is forgotten here."""
    by = forecaster()
    Simulation([FIRST, THEN], [by]).run(visits(60))
    counts = SharedCounts(by)
    counts.sent("today", counts.unsent())
    assert any(cell.chance > 0 for cell in by.cells.values())
    counts.learn("today", {})
    assert {cell.chance for cell in by.cells.values()} == {UNKNOWN}
    assert counts.unsent() == {}


# -- two weeks of made-up traffic --------------------------------------------------------------------------------------


def test_two_weeks_of_habits() -> None:
    """A quarter less waiting; seven of ten loads used; what it says is what happens; the budget is kept."""
    alone = Simulation(simulated_views(TRADING)).run(simulated(trading(WEEKS), TRADING))
    by = forecaster()
    days = by_day(Simulation(simulated_views(TRADING), [by]), simulated(trading(WEEKS), TRADING))
    found = total(days)
    assert found.mean_wait_ms <= 0.75 * alone.mean_wait_ms
    assert found.precision >= 0.7
    assert found.database_ms <= 1.25 * alone.database_ms
    assert found.wasted <= 0.1 * found.loads + 1
    judged = [tenth for tenth in by.outcomes.calibration if tenth[0] >= 200]
    assert len(judged) >= 5
    for outcomes, said, happened in judged:
        assert abs(said - happened) <= 0.12 * outcomes


def test_where_there_are_no_habits_nothing_is_loaded() -> None:
    """The same reads by anybody: hardly a load more than without prediction."""
    shape = Shape(users=100, days=8)
    reads = simulated(shuffled(trading(shape), shape.users), TRADING)
    outcome = Simulation(simulated_views(TRADING), [forecaster()]).run(reads)
    assert outcome.ahead <= 0.01 * outcome.loads


def test_another_application_than_it_was_built_with() -> None:
    """Most of what a shop reads has no habit; what it loads is used, and waiting gets less."""
    alone = Simulation(simulated_views(SHOP)).run(simulated(shop(WEEKS), SHOP))
    found = Simulation(simulated_views(SHOP), [forecaster()]).run(simulated(shop(WEEKS), SHOP))
    assert found.mean_wait_ms <= 0.95 * alone.mean_wait_ms
    assert found.precision >= 0.7
    assert found.database_ms <= 1.25 * alone.database_ms


def test_habits_that_change() -> None:
    """Two days later what is loaded is used again, and no more was wasted meanwhile than at other times."""
    shape = Shape(users=200, days=10, flip_day=7)
    days = by_day(Simulation(simulated_views(TRADING), [forecaster()]), simulated(trading(shape), TRADING))
    assert days[9].precision >= 0.6
    for day in range(1, 11):
        found = total(days[:day])
        assert found.wasted <= 0.1 * found.loads + 1
