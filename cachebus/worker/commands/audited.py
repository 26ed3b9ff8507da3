"""Who acts from the command line: every action is in the audit log that the live page shows, before it is done."""

from __future__ import annotations

import getpass
import socket

import msgspec

from cachebus.monitoring.audit import Audit
from cachebus.redis.client import Client


def operator() -> str:
    """Return who runs this command, as the audit log names them."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        user = "somebody"
    return f"{user}@{socket.gethostname()}"


async def note(client: Client, action: str, **target: object) -> None:
    """Write down an action, under the name it has on the live page. Raises: ServerError; it must not be done then."""
    await Audit(client).note(operator(), action, msgspec.json.encode(target).decode())
