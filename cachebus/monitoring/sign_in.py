"""One-use codes that sign somebody in to the live page: whoever reaches Redis may make one, nobody else can."""

from __future__ import annotations

import hashlib
import secrets

from cachebus.redis.client import Client

CODE_S = 600


async def one_use_code(client: Client, name: str = "operator", *, lasts_s: int = CODE_S) -> str:
    """Return a code that makes its bearer an admin, once, within ten minutes. Raises: ServerError."""
    code = secrets.token_urlsafe(24)
    await client.store.call("SET", _name(client, code), name, "EX", lasts_s)
    return code


async def take_code(client: Client, code: str) -> str | None:
    """Use a code up; return whose it is, None where it was used already or is too old. Raises: ServerError."""
    name = await client.store.call("GETDEL", _name(client, code))
    return name.decode() if name is not None else None


def _name(client: Client, code: str) -> str:
    return client.names.bus("page-code", hashlib.sha256(code.encode()).hexdigest())
