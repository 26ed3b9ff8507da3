"""Two workers, one publisher, and everything that can go wrong with them; and a checker that trusts none of them.

The publisher keeps its own record of what was accepted. The checker reads feed, ledger and dead letters, and says what
is lost, what is there twice, and what is out of order. `python -m tests.support.bus_soak` runs it at full size.

Beside `publish()` it uses plain `PUBLISH`. Redis forgets what nobody hears, so one bridge, of no worker, stays
subscribed through all that befalls the workers; while the server itself is about to be restarted, replaced, or to close
every connection, nothing is sent that way.

Kills at random can hit the same event twice while its mark is set, and then it is taken for a poison: `condemned`, a
dead letter, no effects. So is one whose every attempt was refused memory. The harness replays those, and whatever is
not in the feed after that is lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from cachebus.bus.dead_letters import DeadLetters
from cachebus.bus.engine.bridge import Bridge
from cachebus.bus.letters import Letter
from cachebus.bus.publisher import Bus
from cachebus.errors import ServerError
from cachebus.testing import FaultProxy
from tests.support.bus_harness_worker import numbers
from tests.support.process_faults import SkewedClocks, pinch, release
from tests.support.serving import HERE, Workers, running
from tests.support.topologies import UNASKED, Deployment, deployed

LEASE = "500ms"
PATIENCE_S = 60.0
PLAIN = 10_000_000
"""Numbers from here on are those of plain messages."""


class Crashing(Workers):
    """Worker processes that run the harness's handler, behind a network that can fail."""

    async def start(self, **environment: str) -> str:
        """Start a worker and return its name when it is ready."""
        name = f"w{next(self._names)}"
        arguments = (str(HERE / "bus_harness_worker.py"), self._url, self._client.names.namespace, name, self._lease)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, *arguments),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": str(HERE.parents[1]), **environment},
        )
        self._alive[name] = process
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"
        return name

    async def starve(self, name: str, seconds: float) -> bool:
        """Refuse a worker all memory for a while; returns whether it died of it."""
        process = self._alive[name]
        pinch(process.pid)
        await asyncio.wait([asyncio.ensure_future(process.wait())], timeout=seconds)
        if process.returncode is None:
            release([process.pid])
            return False
        await self.died(name)
        return True

    async def kill_all(self) -> None:
        """kill -9 of every worker."""
        for name in list(self._alive):
            await self.kill(name)


@dataclass
class Findings:
    """What the checker found. `sound` is what is wanted."""

    published: int = 0
    plain: int = 0
    """Of them, by plain `PUBLISH`."""
    lost: list[int] = field(default_factory=list)
    twice: list[int] = field(default_factory=list)
    invented: list[int] = field(default_factory=list)
    disordered: int = 0
    plain_disordered: int = 0
    """Of the plain ones; not promised: one that a cut-off bridge still holds is overtaken by others' (delivery.md)."""
    not_invalidated: list[int] = field(default_factory=list)
    condemned: list[int] = field(default_factory=list)
    """Taken for poisons, or without memory, and replayed by the harness: out of order, but neither lost nor twice."""
    letters: list[Letter] = field(default_factory=list)
    """Every dead letter there was, before the replay; all but those of `condemned` are wrong."""

    @property
    def sound(self) -> bool:
        """Whether each event's effects are there once, in order, and nothing else is."""
        wrong = (self.lost, self.twice, self.invented, self.disordered, self.not_invalidated)
        return not any(wrong) and len(self.letters) == len(self.condemned)


def may_be(letter: Letter) -> bool:
    """Whether the faults explain a dead letter."""
    return letter.kind == "poison" or (letter.kind == "failed" and letter.reason.startswith("MemoryError"))


def condemned(letters: Iterable[Letter]) -> list[int]:
    """Return the numbers of the events whose dead letters the faults explain."""
    return [int(msgspec.json.decode(letter.payload)["n"]) for letter in letters if may_be(letter)]


def check(
    accepted: list[int], feed: list[int], scopes: set[str], letters: list[Letter], retried: Iterable[int] = ()
) -> Findings:
    """Compare what was accepted, in that order, with what became of it. What was *retried* comes when it is due."""
    seen, wanted, replayed = Counter(feed), set(accepted), condemned(letters)
    late = {*replayed, *retried}
    first = [n for n in dict.fromkeys(feed) if n not in late]
    return Findings(
        published=len(accepted),
        plain=sum(n >= PLAIN for n in accepted),
        lost=[n for n in accepted if n not in seen],
        twice=[n for n, times in seen.items() if times > 1],
        invented=[n for n in seen if n not in wanted],
        disordered=out_of_order(n for n in first if n < PLAIN),
        plain_disordered=out_of_order(n for n in first if n >= PLAIN),
        not_invalidated=[n for n in accepted if f"t:n:{n}" not in scopes],
        condemned=replayed,
        letters=letters,
    )


def out_of_order(numbers: Iterable[int]) -> int:
    """Return how often a number follows a higher one."""
    return sum(later < earlier for earlier, later in itertools.pairwise(numbers))


class Harness:
    """One run: *faults* so many, of *kinds* by weight, while *events* events are published and *after* them none."""

    def __init__(
        self,
        deployment: Deployment,
        clocks: SkewedClocks,
        *,
        events: int,
        faults: dict[str, int],
        seed: int,
        fence: bool,
    ) -> None:
        self._deployment = deployment
        self._clocks = clocks
        self._events = events
        self._draw = random.Random(seed)  # noqa: S311 - moments, not secrets
        self._plan = [kind for kind, times in faults.items() for _ in range(times)]
        self._draw.shuffle(self._plan)
        self.retried = clocks.folder / "retried"
        self._environment = {"RETRIED": str(self.retried)} | ({} if fence else {"FENCE": "off"})
        self.done: Counter[str] = Counter()
        """The faults, as they came."""
        self.accepted: list[int] = []
        self.plain: list[int] = []
        self._calm = asyncio.Lock()
        self.takeovers_s: list[float] = []
        self._stop_worker = ""
        self._may_publish = 0

    async def run(self) -> Findings:
        """Publish, break, wait until all is handled, check."""
        async with contextlib.AsyncExitStack() as stack:
            url = await self._url(stack)
            client = await stack.enter_async_context(self._deployment.client())
            workers = await stack.enter_async_context(Crashing(client, url, LEASE))
            self._client, self._workers = client, workers
            self._bridge = Bridge(client, [numbers])
            async with running(self._bridge):
                for _ in range(2):
                    await self._start()
                publishing = asyncio.create_task(self._publish())
                for at, kind in enumerate(self._plan):
                    await self._break(kind, after=at / len(self._plan), until=(at + 1) / len(self._plan))
                await publishing
                await self._until(self._handled)
                letters = list(await DeadLetters(client).list(self._events + len(self.plain)))
                await DeadLetters(client).replay(letter.letter_id for letter in letters if may_be(letter))
                await self._until(self._in_feed)
                if unasked := await self._deployment.unasked():
                    self.done[UNASKED] += unasked
                return await self._check(letters)

    async def _url(self, stack: contextlib.AsyncExitStack) -> str:
        """Return where workers connect: through a network that can fail, where the store is reached at one port."""
        if self._deployment.replicated:
            self._environment |= self._deployment.environment
            return self._deployment.url
        self._proxy = await stack.enter_async_context(FaultProxy(self._deployment.proxied_port))
        url, environment = self._deployment.through(self._proxy)
        self._environment |= environment
        return url

    async def _start(self) -> None:
        await self._workers.start(**self._environment, **self._clocks.environment())

    async def _break(self, kind: str, *, after: float, until: float) -> None:
        """Do it once a share *after* of the events is published; publishing may go on to a share *until* meanwhile."""
        self._may_publish = int(self._events * until)
        while len(self.accepted) < int(self._events * after):  # noqa: ASYNC110 - polling is enough here
            await asyncio.sleep(0.005)
        self.done[await getattr(self, f"_{kind}")() or kind] += 1

    # -- the faults -------------------------------------------------------------------------------------------------

    async def _kill(self) -> None:
        """kill -9 of the active worker; another process is started in its place."""
        active = await self._active()
        await asyncio.sleep(self._draw.uniform(0, 0.2))
        killed = time.monotonic()
        await self._workers.kill(active)
        await self._start()
        await self._active(other_than=active)
        self.takeovers_s.append(time.monotonic() - killed)

    async def _stop(self) -> None:
        """SIGSTOP in the middle of a handler until another worker is active, then SIGCONT."""
        active = await self._active()
        self._stop_worker = active
        await self._active(other_than=active)
        behind = await self._length()
        await self._until(lambda: self._longer(behind))  # it has written what the stopped one had in hand
        self._workers.resume(active)

    async def _die(self) -> str:
        """The server dies: it comes back with its append-only file, or its replica takes over."""
        async with self._nothing_plain():
            return await self._deployment.die(self._draw)

    async def _cut(self) -> None:
        """The server closes every connection."""
        async with self._nothing_plain():
            await self._deployment.cut()

    async def _fill(self) -> str:
        """The server is full and refuses writes for a while, longer than the lease."""
        await self._deployment.fill(self._draw.uniform(0.5, 3.0))
        return "maxmemory reached"

    async def _starve(self) -> str:
        """The active worker gets no more memory for a while; if it dies of that, another is started."""
        active = await self._active()
        if await self._workers.starve(active, self._draw.uniform(0.2, 2.0)):
            await self._start()
            return "memory limit, died of it"
        return "memory limit, survived"

    async def _jump(self) -> str:
        """Every worker's wall clock, wrong already, is set to another wrong time."""
        return "clocks jumped" if self._clocks.jump() else "no clock jumped"

    async def _swallow(self) -> None:
        """The workers' sockets stay open and carry nothing for a while, longer than the lease."""
        self._proxy.black_hole()
        await asyncio.sleep(self._draw.uniform(0.5, 3.0))
        self._proxy.resume()

    # -- the publisher ----------------------------------------------------------------------------------------------

    async def _publish(self) -> None:
        bus = Bus(self._client)
        for n in range(self._events):
            while n >= self._may_publish and not self._stop_worker:  # noqa: ASYNC110 - polling is enough here
                await asyncio.sleep(0.005)
            stop, self._stop_worker = self._stop_worker, ""
            await bus.publish("numbers", {"n": n, "stop": stop}, timeout="60s")
            self.accepted.append(n)
            if n % 4 == 0:
                await self._publish_plainly(PLAIN + n)
            await asyncio.sleep(0.002)

    async def _publish_plainly(self, n: int) -> None:
        async with self._calm:
            await self._until(self._listens)
            await self._client.store.call("PUBLISH", "numbers", msgspec.json.encode({"n": n}), timeout_s=5.0)
            self.plain.append(n)

    @contextlib.asynccontextmanager
    async def _nothing_plain(self) -> AsyncIterator[None]:
        """All that was published plainly is heard; nothing more is, until the bridge listens again."""
        async with self._calm:
            await self._until(self._has_heard)
            gaps = self._bridge.stats.gaps
            yield
            await self._until(lambda: self._listens_after(gaps))

    async def _has_heard(self) -> bool:
        return self._bridge.stats.heard == len(self.plain)

    async def _listens(self) -> bool:
        return self._bridge.listening

    async def _listens_after(self, gaps: int) -> bool:
        return self._bridge.listening and self._bridge.stats.gaps > gaps

    # -- looking ----------------------------------------------------------------------------------------------------

    async def _active(self, other_than: str = "") -> str:
        name: str = await self._until(self._workers.active, other_than)
        return name

    async def _length(self) -> int:
        return int(await self._client.store.call("XLEN", self._client.names.feed))

    async def _longer(self, than: int) -> bool:
        return await self._length() > than or len(self.accepted) == self._events

    async def _in_feed(self) -> bool:
        return await self._length() >= self._events + len(self.plain)

    async def _handled(self) -> bool:
        return await self._length() + await DeadLetters(self._client).count() >= self._events + len(self.plain)

    async def _until(self, ask: Callable[[], Awaitable[Any]], other_than: Any = "") -> Any:
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            try:
                found = await ask()
            except ServerError:
                found = None
            if found and found != other_than:
                return found
            await asyncio.sleep(0.01)
        return found

    async def _check(self, letters: list[Letter]) -> Findings:
        call, names = self._client.store.call, self._client.names
        feed: list[int] = []
        after = "-"
        while lines := await call("XRANGE", names.feed, after, "+", "COUNT", 5000, timeout_s=5.0):
            for _, flat in lines:
                record = dict(zip(flat[::2], flat[1::2], strict=True))[b"record"]
                feed.append(msgspec.json.decode(record)["data"])
            after = f"({lines[-1][0].decode()}"
        scopes = {name.decode() for name in await call("ZRANGE", names.ledger, 0, -1, timeout_s=5.0)}
        retried = map(int, self.retried.read_text().split()) if self.retried.exists() else ()
        return check([*self.accepted, *self.plain], feed, scopes, letters, retried)


async def crash(
    *, events: int, faults: dict[str, int], seed: int = 1, fence: bool = True, topology: str = "one"
) -> tuple[Findings, Harness]:
    """Run the harness against a deployment of its own, with workers whose clocks are wrong where libfaketime is."""
    with tempfile.TemporaryDirectory(prefix="cachebus-") as folder:
        clocks = SkewedClocks(Path(folder), random.Random(seed))  # noqa: S311 - a wrong time, not a secret
        async with deployed(topology) as deployment:
            harness = Harness(deployment, clocks, events=events, faults=faults, seed=seed, fence=fence)
            return await harness.run(), harness
