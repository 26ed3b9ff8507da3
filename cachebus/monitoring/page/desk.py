"""Answers the page's questions: one address a tab, each with the state beside what it shows."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from importlib import import_module
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from cachebus.cache.cache import Cache
from cachebus.cache.upkeep.reporter import ENVIRONMENT_NAMES, first_of
from cachebus.errors import ConfigurationError
from cachebus.freshness.cause import caused_by
from cachebus.locks.locks import Locks
from cachebus.monitoring.advice.analysis import newest_report, progress
from cachebus.monitoring.audit import Audit
from cachebus.monitoring.forgetting import Forgetting
from cachebus.monitoring.history import History
from cachebus.monitoring.inspection import reached
from cachebus.monitoring.page.access import Access, RequestRefused, page_cookie
from cachebus.monitoring.page.actions import Actions
from cachebus.monitoring.page.answers import NO_STORE, json_answer
from cachebus.monitoring.page.purge import Purge
from cachebus.monitoring.page.tabs.browsers import show_browsers
from cachebus.monitoring.page.tabs.causes import causes_of_day
from cachebus.monitoring.page.tabs.event import lives_of
from cachebus.monitoring.page.tabs.failures import Failures, LetterFilter
from cachebus.monitoring.page.tabs.find import find
from cachebus.monitoring.page.tabs.inventory import Inventory, inventory
from cachebus.monitoring.page.tabs.keys import show_key, show_keys
from cachebus.monitoring.page.tabs.limits import LimitsShown, show_limits
from cachebus.monitoring.page.tabs.machine import FindingShown, MachineShown, show_machine
from cachebus.monitoring.page.tabs.now import show_now
from cachebus.monitoring.page.tabs.views import show_view, show_views
from cachebus.monitoring.page.watching import Watching
from cachebus.monitoring.page.window import FigureWindow
from cachebus.monitoring.verdict.chronicle import Chronicle
from cachebus.monitoring.verdict.diagnosis import judge, judge_reads
from cachebus.monitoring.verdict.examination import examine
from cachebus.monitoring.verdict.gathering import CALM_S, SLOW_S, Gathering, Glance, Kept
from cachebus.sessions.store import SessionStore

INVENTORY_S = 30.0
AUDITED = 200
LARGEST_BODY = 1_048_576
"""An edited letter may be as long as an event."""

Show = Callable[[Request, Glance], Awaitable[Any]]


class Desk:
    """Answers over one connection."""

    def __init__(
        self,
        cache: Cache,
        access: Access,
        sessions: SessionStore,
        gathering: Gathering,
        watching: Watching,
    ) -> None:
        self._cache = cache
        self._client = cache.client
        self._access = access
        self._sessions = sessions
        self._gathering = gathering
        self._watching = watching
        self._failures = Failures(cache.client, gathering.shards)
        self._actions = Actions(cache, self._failures, sessions, gathering)
        self._locks = Locks(cache.client, owner="live page")
        self._audit, self._chronicle = Audit(cache.client), Chronicle(cache.client)
        self._inventory, self._findings, self._samples = Kept(INVENTORY_S), Kept(INVENTORY_S), Kept(SLOW_S)
        self._silence, self._causes = Kept(CALM_S), Kept(CALM_S)
        self._looks: dict[str, Show] = {
            "state": self._state,
            "now": self._now,
            "views": self._views,
            "view": self._view,
            "events": self._events,
            "event": self._event,
            "failures": self._list_failures,
            "jobs": self._jobs,
            "browsers": self._browsers,
            "keys": self._keys,
            "key": self._key,
            "reach": self._reach,
            "user": self._user,
            "limits": self._limits,
            "machine": self._machine,
            "advice": self._advice,
            "audit": self._list_audit,
            "find": self._find,
        }

    async def look(self, request: Request) -> Response:
        """Show one thing to whoever may look. Raises: RequestRefused."""
        viewer = await self._access.looking(request)
        name = request.path_params["name"]
        if name == "tail":
            return StreamingResponse(self._watching.stream(), media_type="text/event-stream", headers=NO_STORE)
        if name not in self._looks:
            raise RequestRefused(404, f"there is no {name[:80]}")
        glance = await self._gathering.glance()
        data = await self._looks[name](request, glance)
        return json_answer(
            {
                "at_ms": glance.at_ms,
                "me": {"name": viewer.name, "admin": viewer.admin},
                "can": sorted(self._actions.verbs),
                "state": self._about(glance),
                "data": data,
            }
        )

    async def act(self, request: Request) -> Response:
        """Do one thing for an admin: checked, then written down, then done. Raises: RequestRefused."""
        verb = request.path_params["name"]
        if verb == "enter":
            return await self._enter(request)
        viewer = await self._access.acting(request)
        if verb not in self._actions.verbs:
            raise RequestRefused(404, f"{verb[:80]} cannot be done from here")
        action = self._actions.verbs[verb]
        asked = msgspec.json.decode(await _body(request), type=action.asks)
        await self._audit.note(viewer.name, verb, msgspec.json.encode(asked).decode())
        with caused_by("admin", viewer.name, verb):
            done = await action.do(asked, viewer.name)
        self._gathering.forget()
        for kept in (self._silence, self._inventory):
            kept.forget()
        return json_answer(done)

    def _about(self, glance: Glance) -> dict[str, Any]:
        """Return what stands above every tab."""
        known = glance.known
        return {
            "level": glance.verdict.level,
            "says": glance.verdict.says,
            "reasons": glance.verdict.reasons,
            "known": known is not None,
            "letters": known.waits.dead_letters if known is not None else None,
            "watched": known is not None and known.watch is not None,
            "environment": first_of(ENVIRONMENT_NAMES)[1],
            "namespace": self._client.names.namespace,
            "version": import_module("cachebus").__version__,
            "release": known.releases[0] if known is not None and known.releases else None,
        }

    # -- looking ----------------------------------------------------------------------------------------------------

    async def _state(self, _request: Request, _glance: Glance) -> None:
        """Show nothing but what stands above every tab."""

    async def _now(self, request: Request, glance: Glance) -> Any:
        window = FigureWindow.of(request.query_params, glance.at_ms / 1000)
        if glance.known is None:
            return show_now(glance, window, {}, [], None)
        hours, samples, silence = await asyncio.gather(
            self._gathering.day(),
            self._samples.get(self._chronicle.samples),
            self._silence.get(self._chronicle.silence),
        )
        return show_now(glance, window, hours, samples, silence)

    async def _views(self, request: Request, glance: Glance) -> Any:
        window = FigureWindow.of(request.query_params, glance.at_ms / 1000)
        return show_views(glance, window, await self._gathering.day() if glance.known is not None else {})

    async def _view(self, request: Request, glance: Glance) -> Any:
        window = FigureWindow.of(request.query_params, glance.at_ms / 1000, usual="24h")
        hours = await self._gathering.day() if glance.known is not None else {}
        causes = await self._causes.get(lambda: causes_of_day(self._client)) if glance.known is not None else {}
        return await show_view(self._cache, glance, request.query_params.get("name", ""), window, hours, causes)

    async def _events(self, _request: Request, glance: Glance) -> Any:
        return {"waits": glance.known.waits if glance.known is not None else None}

    async def _event(self, request: Request, _glance: Glance) -> Any:
        return await lives_of(self._cache, request.query_params.get("id", ""), self._gathering.shards)

    async def _list_failures(self, request: Request, glance: Glance) -> Any:
        releases = glance.known.releases if glance.known is not None else []
        return await self._failures.show(LetterFilter.of(request.query_params), releases)

    async def _jobs(self, _request: Request, glance: Glance) -> Any:
        return glance.known.jobs if glance.known is not None else None

    async def _browsers(self, request: Request, _glance: Glance) -> Any:
        asked = (request.query_params.get(name, "") for name in ("user", "topic", "gateway"))
        return await show_browsers(self._client, self._sessions, *asked)

    async def _keys(self, request: Request, _glance: Glance) -> Any:
        return await show_keys(self._cache, Purge.of(request.query_params))

    async def _key(self, request: Request, _glance: Glance) -> Any:
        return await show_key(self._cache, request.query_params.get("key", ""))

    async def _reach(self, request: Request, _glance: Glance) -> Any:
        names = await Purge.of(request.query_params).names(self._cache)
        found = await reached(self._cache, keys=names.keys, tags=names.tags, prefixes=names.prefixes)
        return found._asdict()

    async def _user(self, request: Request, _glance: Glance) -> Any:
        """Show what is kept of a user, as *forget* would find it."""
        user = request.query_params.get("user", "")
        if not user:
            raise ConfigurationError("user: name one")
        forgetting = Forgetting(self._cache, user, shards=self._gathering.shards, step=lambda _: None)
        return await forgetting.run(delete=False)

    async def _limits(self, request: Request, glance: Glance) -> Any:
        if glance.known is None:
            return LimitsShown(None, None)
        return await show_limits(self._client, self._locks, await self._stored(), request.query_params.get("name", ""))

    async def _machine(self, _request: Request, glance: Glance) -> Any:
        if glance.known is None:
            return MachineShown(glance.servers)
        samples, found, findings = await asyncio.gather(
            self._samples.get(self._chronicle.samples), self._stored(), self._findings.get(self._examined)
        )
        return await show_machine(self._client, glance, glance.known, samples, found, findings)

    async def _advice(self, _request: Request, _glance: Glance) -> Any:
        report, under_way = await asyncio.gather(newest_report(self._client), progress(self._client))
        return {"report": report, "progress": under_way}

    async def _list_audit(self, _request: Request, _glance: Glance) -> Any:
        return await self._audit.newest(AUDITED)

    async def _find(self, request: Request, glance: Glance) -> Any:
        locks = (await self._stored()).locks if glance.known is not None else []
        asked = request.query_params.get("q", "")
        return await find(self._cache, glance, self._locks, locks, asked, shards=self._gathering.shards)

    async def _stored(self) -> Inventory:
        return await self._inventory.get(lambda: inventory(self._client))

    async def _examined(self) -> list[FindingShown]:
        """Return what `doctor` says of the servers."""
        client, url = self._client, self._cache.settings.url
        apart = client.entries is not client.store
        facts = [await examine(client.store, url, client.names.wake, keeps=True, caches=not apart)]
        if apart:
            facts.append(await examine(client.entries, url, client.names.wake, keeps=False, caches=True))
        found = [finding for each in facts for finding in judge(each)]
        found += judge_reads(await History(client).processes())
        return [FindingShown(each.grade.name.lower(), each.what, each.fix) for each in found]

    # -- acting -----------------------------------------------------------------------------------------------------

    async def _enter(self, request: Request) -> Response:
        asked = msgspec.json.decode(await _body(request), type=dict[str, str])
        session_id, name = await self._access.enter(request, asked.get("code", ""))
        await self._audit.note(name, "enter", request.client.host if request.client is not None else "")
        response = json_answer({"done": "signed in"})
        cookie = page_cookie(request)
        response.set_cookie(cookie, session_id, secure=cookie.startswith("__Host-"), httponly=True, samesite="strict")
        return response


async def _body(request: Request) -> bytes:
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > LARGEST_BODY:
            raise RequestRefused(413, "more than 1 MiB")
    return body
