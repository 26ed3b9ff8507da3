"""Who is told of what, and when: a reason must last before it is told, and be gone for a while before that is. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from cachebus.monitoring.verdict.assessment import Assessment, Level, Reason
from cachebus.monitoring.verdict.chronicle import AlertRules, WatchState
from cachebus.monitoring.wording import counted

LEVELS = ("ok", "warn", "bad")
CLEAR_MS = 120_000
"""A reason that is back within so long was never gone: what comes and goes is one alarm."""
SIGNS = {"ok": "✅", "warn": "⚠️", "bad": "🔴"}


class AlertMessage(msgspec.Struct, frozen=True):
    """One message: what is wrong now, or that nothing is any more."""

    state: str
    """`firing` or `resolved`."""
    level: Level
    text: str
    """A sentence for people."""
    at_ms: float
    reasons: list[Reason]
    resolved: list[str]
    """Keys of reasons that are gone since the last message."""
    environment: str = ""
    namespace: str = ""
    release: str = ""
    page: str = ""
    """Where to look."""


def alert_of(
    state: WatchState, found: Assessment, now_ms: float, rules: AlertRules
) -> tuple[dict[str, float], AlertMessage | None]:
    """Return what is firing now, and what is to be told if that has changed since the last message."""
    wanted = LEVELS.index(rules.level)
    present = {each.key: each for each in found.reasons if LEVELS.index(each.level) >= wanted}
    lasting = {key for key, each in present.items() if now_ms - each.since_ms >= rules.after_ms}
    firing = {
        key: now_ms if key in present else seen_ms
        for key, seen_ms in state.firing.items()
        if key in present or now_ms - seen_ms < CLEAR_MS
    }
    begun = lasting - state.firing.keys()
    firing |= dict.fromkeys(begun, now_ms)
    resolved = sorted(state.firing.keys() - firing.keys())
    if not begun and not resolved:
        return firing, None
    if not firing:
        text = f"Resolved: {' and '.join(resolved)}. {found.says}"
        return firing, AlertMessage("resolved", found.level, text, now_ms, [], resolved)
    reasons = [present[key] for key in firing if key in present]
    worst = max((each.level for each in reasons), key=LEVELS.index, default=found.level)
    return firing, AlertMessage("firing", worst, found.says, now_ms, reasons, resolved)


def json_form(alert: AlertMessage) -> bytes:
    """Return a message as any webhook gets it."""
    return msgspec.json.encode({"version": 1, **msgspec.to_builtins(alert)})


def slack_form(alert: AlertMessage) -> bytes:
    """Return a message as Slack, Mattermost and Discord (`/slack`) take it. Source: Slack, Incoming Webhooks."""
    where = " ".join(part for part in (alert.environment, alert.namespace) if part)
    level = "ok" if alert.state == "resolved" else alert.level
    lines = [f"{SIGNS[level]} *{where}*: {_plain(alert.text)}"]
    for each in alert.reasons:
        minutes = round((alert.at_ms - each.since_ms) / 60_000)
        began = f" (began {_plain(each.began)})" if each.began else ""
        lines.append(f"• {_plain(each.text)}, for {counted(minutes, 'minute')}{began}")
    if alert.page:
        lines.append(f"<{alert.page}|the live page>")
    payload: dict[str, Any] = {"text": "\n".join(lines)}
    return msgspec.json.encode(payload)


def _plain(text: str) -> str:
    """Return text that forms no link, mention or markup there. Source: Slack, Escaping text."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
