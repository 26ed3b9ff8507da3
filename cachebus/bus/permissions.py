"""What the server's access rules (ACL) must allow: tried out, and said with the rule that is missing.

A user that Redis 7 was given without `&*` may use no channel at all. Scripts do not roll back, so what one needs is
tried before it writes.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

from cachebus.errors import AccessDenied, ServerError
from cachebus.redis.client import Client

TIMEOUT_S = 2.0


async def refused_commands(client: Client) -> list[str]:
    """Return a line for each command or key pattern that the store's server refuses this user. One round trip.

    Raises: ServerError when it cannot be asked.
    """
    namespace = client.names.namespace
    keys = [client.names.bus("try", kind) for kind in ("text", "hash", "stream", "set", "list")]
    try:
        refused = await client.store.run("bus/try_commands", keys, timeout_s=TIMEOUT_S)
    except AccessDenied as denied:
        rule = f"~{{{namespace}}}:* ~{namespace}:*" if "key" in str(denied) else "+@scripting"
        return [await _line(client, "scripts", str(denied), rule)]
    lines = []
    for each in refused:
        command, _, reason = each.decode().partition(" ")
        lines.append(await _line(client, command.upper(), reason, f"+{command}"))
    return lines


async def refused_channels(client: Client, channels: Iterable[str] = ()) -> list[str]:
    """Return a line for each channel that this user may not use: the library's own, broadcasts, and *channels*.

    *channels* as in `@on`: a name, or a pattern with '*'. What is published here nobody hears. Raises: ServerError.
    """
    names, lines = client.names, []
    try:
        await client.store.call("PUBLISH", names.bus("try"), "", key=names.wake, timeout_s=TIMEOUT_S)
    except AccessDenied as denied:
        if " run " in str(denied):  # else it may not use the channel
            lines.append(await _line(client, "PUBLISH", str(denied), "+publish"))
    own = {names.bus("try"): names.bus("*")}  # one rule for all: some of them carry a token
    for channel in dict.fromkeys([*own, "ws:*", *channels]):
        connection = await client.store.dedicated(names.wake, lambda _push: None)
        try:
            connection.post("PSUBSCRIBE" if "*" in channel else "SUBSCRIBE", channel)
            await connection.call("PING", timeout_s=TIMEOUT_S)
        except AccessDenied as denied:
            named = own.get(channel, channel)
            lines.append(await _line(client, f"channel {named}", str(denied), f"&{named}"))
        finally:
            await connection.close()
    return lines


async def _line(client: Client, what: str, reason: str, rule: str) -> str:
    user = "<user>"
    with suppress(ServerError):
        user = (await client.store.call("ACL", "WHOAMI")).decode()
    return f"{what}: refused ({reason}); add it: ACL SETUSER {user} {rule}"
