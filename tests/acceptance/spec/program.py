"""A program that pastes the strategy's blocks one after the other, and says as JSON what came of them.

`python -m spec.program sync` runs them at the top of a program, `async` inside a running event loop, `thread` in a
thread of one. The functions they mention are small ones of its own.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy import String, create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.pool import StaticPool

from tradesense.core import cache as core
from tradesense.core import redis_enhancements

BLOCK = re.compile(r"^## (.*?)\n\n```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCKS = BLOCK.findall(Path(__file__).with_name("blocks.md").read_text())

DEADLINE_S = 20.0


class Base(DeclarativeBase):
    """The application's tables."""


class Trade(Base):
    """A trade, as the strategy's query asks for it."""

    __tablename__ = "trades"
    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int]
    symbol: Mapped[str] = mapped_column(String(12))


class Application:
    """What the strategy's blocks take for granted."""

    def __init__(self) -> None:
        self.calls: dict[str, int] = {"analytics": 0, "import": 0}
        self.heard: list[Any] = []
        self.heard_one = threading.Event()
        engine = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
        Base.metadata.create_all(engine)
        self.db = Session(engine)
        self.db.add_all([Trade(id=n, user_id=123, symbol=f"S{n}") for n in range(1, 21)])
        self.db.commit()

    def calculate_analytics(self, user_id: int) -> dict[str, int]:
        """Expensive."""
        self.calls["analytics"] += 1
        return {"user_id": user_id, "calculation": self.calls["analytics"]}

    def handle_trade_update(self, message: Any) -> None:
        """A subscriber."""
        self.heard.append(message)
        self.heard_one.set()

    def process_trade_import(self) -> None:
        """Exclusive."""
        self.calls["import"] += 1

    def names(self) -> dict[str, Any]:
        """Return what the blocks may use: the import, and what they mention."""
        return {
            **vars(redis_enhancements),
            **vars(core),
            "user_id": 123,
            "db": self.db,
            "Trade": Trade,
            "calculate_analytics": self.calculate_analytics,
            "handle_trade_update": self.handle_trade_update,
            "process_trade_import": self.process_trade_import,
            "false": False,  # the feature flags stand there as an environment writes them
        }


def run(application: Application) -> dict[str, Any]:
    """Run every block; returns what each raised, if it did, and the names they left."""
    names, failed = application.names(), {}
    for title, code in BLOCKS:
        try:
            exec(compile(code, title, "exec"), names)  # noqa: S102 - running them is the test
        except Exception:  # noqa: BLE001 - said to the test
            failed[title] = traceback.format_exc()
    return {"failed": failed, "names": names}


async def use(application: Application, names: dict[str, Any]) -> dict[str, Any]:
    """Use what the blocks have defined, and say what a user sees."""
    analytics, trades = names["get_portfolio_analytics"], names["get_top_trades"]
    seen: dict[str, Any] = {"first": await analytics(123), "cached": await analytics(123)}
    names["invalidate_analytics_cache"](123)
    seen["invalidated"] = await analytics(123)
    seen["other user"] = (await analytics(7))["user_id"]
    seen["trades"] = [(trade.id, trade.symbol, trade.user_id) for trade in await trades(123, 2)]
    application.db.add(Trade(id=21, user_id=8, symbol="NEW"))
    application.db.commit()
    seen["before the import"] = len(await trades(8))
    application.db.add(Trade(id=22, user_id=8, symbol="NEWER"))
    application.db.commit()
    seen["not yet known"] = len(await trades(8))
    names["invalidate_trades_cache"](8)
    seen["after the import"] = len(await trades(8))
    return seen


def tell(application: Application, result: dict[str, Any], seen: dict[str, Any]) -> None:
    """Print what happened."""
    names = result["names"]
    session = names.get("session")
    names["pubsub"].publish("trade:updates", {"user_id": 123, "action": "new_trade"})
    application.heard_one.wait(DEADLINE_S)
    print(  # noqa: T201 - its answer
        json.dumps(
            {
                "failed": result["failed"],
                "calls": application.calls,
                "seen": seen,
                "session": session and [session.user_id, session.data["ip"]],
                "session afterwards": str(names["session_store"].get_session(names["session_id"])),
                "limit": [names.get("allowed"), names.get("remaining")],
                "heard": application.heard,
                "price": names.get("price"),
                "price afterwards": names["cache_manager"].get("market:btc:price"),
                "stats": sorted(names.get("stats", {})),
                "info": names.get("info", {}).get("status"),
            }
        )
    )


def main(mode: str) -> None:
    """Run the program as *mode* says."""
    application = Application()
    before = threading.active_count()
    assert before == 1, "importing has started something"

    async def inside() -> None:
        result = run(application)
        tell(application, result, await use(application, result["names"]))

    def outside() -> None:
        result = run(application)
        tell(application, result, asyncio.run(use(application, result["names"])))

    modes: dict[str, Callable[[], object]] = {"sync": outside, "async": lambda: asyncio.run(inside())}
    modes[mode]()


if __name__ == "__main__":
    main(sys.argv[1])
