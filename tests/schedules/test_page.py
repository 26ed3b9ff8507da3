"""The how-to page on schedules works as it stands."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from cachebus.private_server import PrivateServer
from cachebus.schedules import Job, daily, every

PAGE = Path(__file__).parents[2] / "docs/howto/schedule-a-warm-up.md"


async def test_the_page_runs(server: PrivateServer, namespace: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its blocks, one after the other, as a module; its test passes, and what it operates did what it says."""
    monkeypatch.setenv("REDIS_URL", server.url)
    monkeypatch.setenv("CACHE_NAMESPACE", namespace)
    code = "\n".join(re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL))
    names: dict[str, object] = {"__name__": "page"}
    exec(compile(code, PAGE.name, "exec"), names)  # noqa: S102 - our own page
    jobs = [value for value in names.values() if isinstance(value, Job)]
    assert [job.function.__name__ for job in jobs] == ["active_portfolios", "house_portfolios", "tidy_up", "ahead"]
    test, operate = names["test_tidying_up"], names["operate"]
    assert inspect.iscoroutinefunction(test)
    assert inspect.iscoroutinefunction(operate)
    await test()
    said = await operate()
    assert said[0].startswith("page.active_portfolios: done")


def test_the_page_names_every_option() -> None:
    """Each option of the decorators has its row, with the default that the code has."""
    rows = set(re.findall(r"^\| `(\w+)` \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE))
    assert rows == set(inspect.signature(every).parameters) - {"interval"}
    assert inspect.signature(every).parameters["misfire"].default == "skip"
    assert inspect.signature(daily).parameters["misfire"].default == "once"
