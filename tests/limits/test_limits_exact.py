"""The limiter's script against models in exact rational numbers, on a clock the test sets and on the real one."""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
from pathlib import Path

import pytest

from cachebus.redis.client import Client
from cachebus.testing.server import PrivateServer
from tests.support.limit_models import MODELS, WindowsModel
from tests.support.server_clock import ClockedServer

MINUTE = 60_000_000
SHAPES = [(1, MINUTE), (5, 5 * MINUTE), (64, MINUTE), (7, MINUTE + 13_000)]
LARGE = [(65, MINUTE), (1000, 60 * MINUTE), (977, 7 * MINUTE + 31_000)]
CASES = [
    *[("log", *shape) for shape in SHAPES],
    *[(kind, *shape) for kind in ("windows", "bucket", "fixed") for shape in SHAPES + LARGE],
    ("bucket", 2**52 // 86_400_000, 24 * 60 * MINUTE),
]


@pytest.fixture
def clocked(client: Client) -> ClockedServer:
    return ClockedServer(client.store, client.names.namespace, linger_ms=600_000)


async def take(server: ClockedServer, key: str, kind: str, limit: int, window: int, cost: int = 1) -> tuple[int, ...]:
    _now, *look = await server.run("limits/check", [f"{server.namespace}:{key}"], [cost, "take", kind, limit, window])
    return tuple(look)


@pytest.mark.parametrize(("kind", "limit", "window"), CASES)
async def test_every_answer_is_the_models(clocked: ClockedServer, kind: str, limit: int, window: int) -> None:
    """Units left, the wait of a refusal and the wait for more are never off by one, at any cost and any pace."""
    draw = random.Random(f"{kind} {limit} {window}")  # noqa: S311 - a seed, not a secret
    model = MODELS[kind](limit, window)
    await take(clocked, "loads the script", kind, limit, window)
    for _ in range(30):
        asked, expected = [], []
        for _ in range(40):  # so few that none waits for another to be sent
            pace = draw.choice([0, 1, window // (3 * limit), window // limit, window // 3, window])
            clocked.now_us += draw.randint(0, pace)
            cost = draw.choice([1, 1, 1, draw.randint(1, limit), limit + 1])
            expected.append(model.take(clocked.now_us, cost))
            asked.append(asyncio.ensure_future(take(clocked, "k", kind, limit, window, cost)))
            await asyncio.sleep(0)  # each command leaves with the clock of its own moment, in order
        assert await asyncio.gather(*asked) == expected


@pytest.mark.parametrize(("kind", "limit"), [("log", 20), ("windows", 200)])
async def test_no_window_ever_holds_more_than_the_limit(clocked: ClockedServer, kind: str, limit: int) -> None:
    """An adversary who fills each moment that opens never gets more than the limit into any window."""
    draw = random.Random(kind)  # noqa: S311 - a seed, not a secret
    admitted: list[int] = []
    for _ in range(2500):
        free, retry, _ = await take(clocked, "k", kind, limit, MINUTE)
        if retry == 0:
            admitted.append(clocked.now_us)
            clocked.now_us += draw.choice([0, 1, 1000, MINUTE // 50])
        else:
            assert free == 0
            clocked.now_us += draw.choice([retry, retry - 1, retry // 2, MINUTE // 2])
    assert len(admitted) > 3 * limit
    for first, last in zip(admitted, admitted[limit:], strict=False):
        assert last - first >= MINUTE


async def test_two_counter_windows_let_twice_the_limit_through_where_ours_do_not(clocked: ClockedServer) -> None:
    """Bursts that fool the usual two weighted counters into twice the limit get the limit here."""
    limit = 100
    counts: dict[int, int] = {}
    theirs: list[int] = []
    ours: list[int] = []
    start = clocked.now_us - clocked.now_us % MINUTE
    for burst_us in (MINUTE - 1, 2 * MINUTE - MINUTE // 2, 2 * MINUTE - 2):
        clocked.now_us = start + burst_us
        index, inside = divmod(clocked.now_us, MINUTE)
        for _ in range(2 * limit):
            if counts.get(index - 1, 0) * (MINUTE - inside) // MINUTE + counts.get(index, 0) < limit:
                counts[index] = counts.get(index, 0) + 1
                theirs.append(clocked.now_us)
            if (await take(clocked, "k", "windows", limit, MINUTE))[1] == 0:
                ours.append(clocked.now_us)

    def most(times: list[int]) -> int:
        return max(sum(t <= other < t + MINUTE for other in times) for t in times)

    assert most(theirs) > limit
    assert most(ours) == limit


async def test_sub_windows_refuse_only_what_a_tenth_more_would_refuse(clocked: ClockedServer) -> None:
    """What was admitted stops counting at most a tenth of a window late, so the throughput is nearly the limit's."""
    draw = random.Random(5)  # noqa: S311 - a seed, not a secret
    admitted: list[int] = []
    for _ in range(3000):
        clocked.now_us += draw.randint(0, MINUTE // 100)
        _, retry, _ = await take(clocked, "k", "windows", 100, MINUTE)
        if retry == 0:
            admitted.append(clocked.now_us)
        else:
            assert sum(t + MINUTE + MINUTE // 10 > clocked.now_us for t in admitted[-101:]) >= 100


@pytest.mark.parametrize(("kind", "limit"), [("log", 3), ("windows", 70), ("bucket", 3), ("fixed", 3)])
async def test_waiting_exactly_retry_after_passes_and_a_millisecond_less_does_not(
    clocked: ClockedServer, kind: str, limit: int
) -> None:
    """A client that waits as long as it was told to is admitted, at any cost; a millisecond earlier it is refused."""
    for cost in (1, 2, limit):
        key = f"k{cost}"
        for _ in range(limit):
            clocked.now_us += 123_456
            await take(clocked, key, kind, limit, MINUTE)
        _, retry, _ = await take(clocked, key, kind, limit, MINUTE, cost)
        assert retry > 0
        clocked.now_us += retry - 1000
        assert (await take(clocked, key, kind, limit, MINUTE, cost))[1] > 0
        clocked.now_us += 1000
        assert (await take(clocked, key, kind, limit, MINUTE, cost))[1] == 0


@pytest.mark.parametrize(("kind", "limit"), [("log", 5), ("windows", 70), ("bucket", 5)])
async def test_a_server_clock_that_steps_back_admits_nobody_early(
    clocked: ClockedServer, kind: str, limit: int
) -> None:
    """After a failover to a server whose clock is an hour behind, a full counter stays full."""
    await take(clocked, "k", kind, limit, MINUTE, limit)
    clocked.now_us -= 60 * MINUTE
    assert (await take(clocked, "k", kind, limit, MINUTE))[1] > 0


@pytest.mark.parametrize(("kind", "limit"), [("log", 5), ("windows", 70), ("bucket", 5)])
async def test_a_server_clock_that_steps_back_breaks_no_promise(clocked: ClockedServer, kind: str, limit: int) -> None:
    """What was left is left, and who waits as long as he was told is admitted."""
    await take(clocked, "k", kind, limit, MINUTE)
    clocked.now_us -= MINUTE // 2
    assert (await take(clocked, "k", kind, limit, MINUTE))[0] == limit - 2
    _, retry, _ = await take(clocked, "k", kind, limit, MINUTE, limit)
    clocked.now_us += retry
    assert (await take(clocked, "k", kind, limit, MINUTE, limit))[:2] == (0, 0)


async def test_a_log_holds_no_more_than_its_limit(clocked: ClockedServer, client: Client) -> None:
    """After a thousand requests over many windows only those that still count are kept."""
    for _ in range(1000):
        clocked.now_us += MINUTE // 9
        await take(clocked, "k", "log", 10, MINUTE)
    assert await client.store.call("LLEN", f"{clocked.namespace}:k") <= 10


@pytest.mark.parametrize("kind", ["log", "windows", "bucket", "fixed"])
async def test_a_changed_limit_holds_from_the_next_call(clocked: ClockedServer, kind: str) -> None:
    """A live counter of another limit neither breaks nor forgets: less is left at once, or more."""
    await take(clocked, "k", kind, 10, MINUTE, 4)
    assert await take(clocked, "k", kind, 3, MINUTE) > (-2, 0, 0)
    assert (await take(clocked, "k", kind, 3, MINUTE))[1] > 0
    assert (await take(clocked, "k", kind, 6, MINUTE))[:2] == (1, 0)


@pytest.mark.parametrize("kind", ["log", "windows", "bucket", "fixed"])
async def test_a_changed_window_keeps_what_was_counted(clocked: ClockedServer, kind: str) -> None:
    """A counter that changes from a minute to an hour begins with what the minute held, not with nothing."""
    clocked.now_us -= clocked.now_us % (60 * MINUTE)
    await take(clocked, "k", kind, 10, MINUTE, 10)
    clocked.now_us += 1000
    assert (await take(clocked, "k", kind, 10, 60 * MINUTE))[1] > 0
    clocked.now_us += 120 * MINUTE
    assert (await take(clocked, "k", kind, 10, 60 * MINUTE))[1] == 0


async def test_an_idle_counter_that_expired_is_as_good_as_an_old_one(clocked: ClockedServer) -> None:
    """Whether the server still has a counter that no longer counts anything makes no difference to the answer."""
    for kind in MODELS:
        await take(clocked, f"old {kind}", kind, 10, MINUTE, 10)
    clocked.now_us += 2 * MINUTE
    for kind in MODELS:
        old, new = await take(clocked, f"old {kind}", kind, 10, MINUTE), await take(clocked, kind, kind, 10, MINUTE)
        assert old == new


@pytest.mark.parametrize(("kind", "limit"), [("log", 20), ("bucket", 50), ("windows", 80), ("fixed", 40)])
async def test_processes_agree_with_the_model_on_the_servers_own_clock(
    server: PrivateServer, client: Client, kind: str, limit: int
) -> None:
    """Three processes hammer one counter; replayed in the server's order, each answer is the model's."""
    window = 300_000
    program = Path(__file__).parents[1] / "support/hammer_limit.py"
    arguments = [server.url, client.names.namespace, kind, str(limit), str(window)]
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable,
            str(program),
            *arguments,
            str(seed),
            stdout=asyncio.subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": str(program.parents[2])},
        )
        for seed in range(3)
    ]
    outputs = [await process.communicate() for process in processes]
    answers = sorted(answer for output, _ in outputs for answer in json.loads(output))
    assert len(answers) == 900
    model = MODELS[kind](limit, window)
    for now, cost, *look in answers:
        assert tuple(look) == model.take(now, cost)
    assert sum(look[1] == 0 for _, _, *look in answers) > limit


def test_the_model_of_sub_windows_is_conservative_itself() -> None:
    """The model the script is held to admits no more than the limit in any window either."""
    draw = random.Random(1)  # noqa: S311 - a seed, not a secret
    model, now, admitted = WindowsModel(10, MINUTE), 0, []
    for _ in range(5000):
        now += draw.randint(0, MINUTE // 10)
        if model.take(now, 1)[1] == 0:
            admitted.append(now)
    assert all(b - a >= MINUTE for a, b in zip(admitted, admitted[10:], strict=False))
