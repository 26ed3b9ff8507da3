"""What a change of settings does: the stored settings become old, and nothing else; the user's browsers hear of it.

Figures are cached under the settings they were computed with, so after a change they are still right for the old
settings: the next read asks for other keys.

Delivered: at least once, in order for each user, all effects of an event together or none.
Twice is safe: invalidating again costs one more read of a row, and a second broadcast is a hint to read again.
"""

from __future__ import annotations

from cachebus import Broadcast, Effects, Invalidate, on
from tradesense.events import SettingsEvent


@on("settings:updates", SettingsEvent)
def settings_changed(event: SettingsEvent) -> Effects:
    """Whoever looks next sees figures computed and grouped the new way."""
    yield Invalidate(tags=[f"user:{event.user_id}:settings"])
    yield Broadcast(f"user:{event.user_id}", "settings.changed", {"changed": event.changed})
