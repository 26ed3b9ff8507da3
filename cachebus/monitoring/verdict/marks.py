"""What stands on the time axis: releases, what admins did, and when the state was not green. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Literal

import msgspec
from msgspec.structs import replace

from cachebus.monitoring.audit import AuditRecord
from cachebus.monitoring.history import Release
from cachebus.monitoring.verdict.assessment import Assessment, Reason
from cachebus.monitoring.verdict.chronicle import StateChange

BEFORE_MS = 600_000
"""What happened this long before something began may be its cause."""
QUIET = {"enter", "alerts/silence"}
"""Actions that change nothing of what figures show."""
LONGEST = 120


class Mark(msgspec.Struct, frozen=True):
    """One moment, or a span."""

    at_ms: float
    kind: Literal["deploy", "admin", "warn", "bad"]
    text: str
    until_ms: float | None = None
    """Where it is a span that has ended."""

    def reaches(self, since_ms: float) -> bool:
        """Whether any of it is since then; a span without an end goes on."""
        if self.kind in ("deploy", "admin"):
            return self.at_ms >= since_ms
        return self.until_ms is None or self.until_ms >= since_ms


def marks(
    releases: Sequence[Release], actions: Sequence[AuditRecord], changes: Sequence[StateChange], since_ms: float
) -> list[Mark]:
    """Return the marks since then, oldest first. *actions* and *changes*: newest first, as they are read."""
    found = [Mark(each.at_ms, "deploy", f"release {each.name}") for each in releases if each.at_ms >= since_ms]
    found += [
        Mark(each.at_ms, "admin", f"{each.who}: {each.action} {_target(each.target)}".strip())
        for each in actions
        if each.at_ms >= since_ms and each.action not in QUIET
    ]
    ends: float | None = None
    for change in changes:
        if change.level != "ok" and (ends is None or ends > since_ms):
            found.append(Mark(change.at_ms, change.level, change.says, ends))
        ends = change.at_ms
    return sorted(found, key=lambda mark: mark.at_ms)


def with_causes(assessment: Assessment, known: Sequence[Mark]) -> Assessment:
    """Return the state with what happened right before each of its reasons began."""
    return Assessment(assessment.level, assessment.says, [_began(each, known) for each in assessment.reasons])


def _began(reason: Reason, known: Sequence[Mark]) -> Reason:
    before = [
        mark for mark in known if mark.kind in ("deploy", "admin") and 0 <= reason.since_ms - mark.at_ms <= BEFORE_MS
    ]
    if not before or not reason.since_ms:
        return reason
    seconds = (reason.since_ms - before[-1].at_ms) / 1000
    after = f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
    return replace(reason, began=f"{after} after {before[-1].text}")


def _target(target: str) -> str:
    """Return what an action was done to, in a few words."""
    try:
        asked = json.loads(target)
    except ValueError:
        return target[:LONGEST]
    if not isinstance(asked, dict):
        return target[:LONGEST]
    return " ".join(str(value) for value in asked.values() if isinstance(value, str | int) and value != "")[:LONGEST]
