"""What a holder knows of its time: no loop, no server, no waiting."""

from __future__ import annotations

import random

from cachebus.locks.local_backend import LocalLocks, LockLines
from cachebus.locks.terms import Lease, Terms, Wake


def test_time_is_counted_from_the_question() -> None:
    """An answer that took long makes the lease shorter here, never longer than on the server."""
    lease = Lease(Terms("a", "9s"), asked_s=100)
    assert lease.left_s(101) == 8
    assert lease.to_ask_ms(104) == 9000
    lease.renewed(asked_s=104, lease_ms=9000)  # arrived whenever it did
    assert lease.left_s(110) == 3
    assert lease.left_s(113) == lease.left_s(200) == 0


def test_a_renewal_is_due_at_a_third_and_tried_again_at_a_twentieth() -> None:
    """Not before; and without an answer not only at the next third."""
    lease = Lease(Terms("a", "12s"), asked_s=0)
    assert lease.next_s(0) == 4
    assert lease.to_ask_ms(3.9) == 0
    assert lease.to_ask_ms(4) == 12_000
    assert round(lease.next_s(4), 6) == 0.6
    assert lease.to_ask_ms(4.5) == 0
    assert lease.to_ask_ms(5) == 12_000
    lease.renewed(asked_s=5, lease_ms=12_000)
    assert lease.next_s(5) == 4


def test_an_outage_of_six_tenths_of_a_lease_loses_nothing() -> None:
    """Wherever it begins, a renewal is tried after it and before the end."""
    for begins in range(120):
        lease, now, away = Lease(Terms("a", "12s"), asked_s=0), 0.0, range(begins, begins + 72)
        while now < 30:
            assert lease.left_s(now) > 0
            asked = lease.to_ask_ms(now)
            if asked and int(now * 10) not in away:
                lease.renewed(now, asked)
            now += max(0.01, lease.next_s(now))


def test_a_late_answer_never_shortens_the_lease() -> None:
    """Answers in any order: what counts is the latest question that was answered."""
    draw = random.Random(5)  # noqa: S311 - a seed, not a secret
    lease, asked = Lease(Terms("a", "1s"), asked_s=0), [draw.random() * 0.9 for _ in range(50)]
    for at in asked:
        lease.renewed(at, 1000)
    assert lease.ends_s == max(asked) + 1


def test_max_hold_caps_what_is_asked_for() -> None:
    """The last renewal asks for what is left, and none comes after it."""
    lease = Lease(Terms("a", "6s", max_hold="10s"), asked_s=0)
    assert lease.to_ask_ms(2) == 6000
    lease.renewed(2, 6000)
    assert lease.to_ask_ms(5) == 5000
    lease.renewed(5, 5000)
    assert lease.ends_s == 10
    assert lease.to_ask_ms(7) == 0
    assert Terms("a", "1m", max_hold="10s").lease_ms == 10_000


def test_without_renewal_nothing_is_asked_for() -> None:
    """Strict auto-release: only the end is waited for."""
    lease = Lease(Terms("a", "6s", renew=False), asked_s=0)
    assert lease.to_ask_ms(5) == 0
    assert lease.next_s(1) == 5


def test_a_doubt_asks_at_once() -> None:
    """Somebody says that the lock is theirs: the server is asked now."""
    lease = Lease(Terms("a", "6s"), asked_s=0)
    lease.hurry(1)
    assert lease.to_ask_ms(1) == 6000


def test_asking_again_is_the_same_place_in_line() -> None:
    """In a process without a server, too: who looks twice stands once, and is offered the lock in its turn."""
    told: list[Wake] = []
    locks = LockLines()
    listening = LocalLocks(locks, "me", told.append)
    assert locks.take("a", "p/1", "me", 1000, wait=True, now_s=0).ours
    for _ in range(3):
        assert not locks.take("a", "p/2", "me", 1000, wait=True, now_s=0).ours
    assert not locks.take("a", "p/3", "me", 1000, wait=True, now_s=0).ours
    seen = locks.look("a", now_s=0.5)
    assert seen is not None
    assert (seen.waiting, seen.remaining) == (2, 0.5)
    assert locks.release("a", "p/1", now_s=0.5)
    assert (told[-1].kind, told[-1].claim) == ("offer", "p/2")
    assert not locks.take("a", "p/3", "me", 1000, wait=True, now_s=9).ours  # an offer in this process has no end
    assert locks.take("a", "p/2", "me", 1000, wait=True, now_s=9).ours
    assert not locks.release("a", "p/2", now_s=11)  # after its end
    assert not locks.renew("a", "p/2", 1000, now_s=11)
    assert listening in locks.listeners
