"""Reference data: changes rarely, and everybody needs it."""

from __future__ import annotations

from cachebus import Warm, daily, every
from tradesense.views import reference_data


@daily("05:00", zone="America/New_York")
async def before_the_first_user(warm: Warm) -> None:
    """Also where no worker was there at five: then as soon as there is one."""
    await warm(reference_data, [()])


@every("45m", jitter="1m")
async def within_its_hour(warm: Warm) -> None:
    """Before it expires, so that nobody waits for it."""
    await warm(reference_data, [()])
