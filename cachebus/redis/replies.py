"""What a server answers: values as they come, and error replies as the errors of this library."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from cachebus.errors import (
    AccessDenied,
    CommandRefused,
    Moved,
    NotReady,
    ReadOnlyServer,
    ServerError,
    ServerOutOfMemory,
    UnknownScript,
    WrongType,
)

Reply = Any  # what a server may answer: bytes, int, None, a list of replies, or a ServerError inside a list

_ERRORS: dict[str, type[ServerError]] = {
    "LOADING": NotReady,
    "BUSY": NotReady,
    "CLUSTERDOWN": NotReady,
    "MASTERDOWN": NotReady,
    "TRYAGAIN": NotReady,
    "READONLY": ReadOnlyServer,
    "OOM": ServerOutOfMemory,
    "NOAUTH": AccessDenied,
    "WRONGPASS": AccessDenied,
    "NOPERM": AccessDenied,
    "WRONGTYPE": WrongType,
    "NOSCRIPT": UnknownScript,
    "MOVED": Moved,
    "ASK": Moved,
}


_CODE = re.compile(r"(?:ERR Error running script .*?@user_script:\d+: )?(?:@user_script: \d+: -)?([A-Z]+)(?= |$)")
"""Where the code of an error is. Redis 6 says before that of a command in a script that the script failed, and before
its own refusals in which line; a script that hands on what `pcall` returned hands on the latter."""
_DENIED_IN_A_SCRIPT = ("ACL failure in script", "The user executing the script can't ")
"""What there stands for NOPERM: of Redis 7.2 and Valkey, of Redis up to 7.0."""


def named(flat: Sequence[bytes]) -> dict[str, bytes]:
    """Return names and values that came as one list: those of a hash, or of a record of a stream."""
    return {name.decode(errors="replace"): value for name, value in zip(flat[::2], flat[1::2], strict=True)}


def reply_error(message: str) -> ServerError:
    """Return the error of this library that an error reply stands for, also of a command in a script."""
    if any(said in message for said in _DENIED_IN_A_SCRIPT):
        return AccessDenied(message)
    code = _CODE.match(message)
    return _ERRORS.get(code[1] if code else "", CommandRefused)(message)


def remedy(denied: AccessDenied) -> str:
    """Return what makes the server allow it: the access rule that is missing, or the right credentials."""
    said = str(denied)
    if "NOPERM" not in said and not any(each in said for each in _DENIED_IN_A_SCRIPT):
        if "(credentials=" in said or "(REDIS_CREDENTIALS=" in said:
            return "correct what that function returns: (user, password, expires_at)"
        return "correct user and password in its URL: redis://user:password@host"
    user, command = re.search(r"User (\S+) has", said), re.search(r"'([^']+)' command", said)
    rule = "&*" if "channel" in said else "~{<namespace>}:* ~<namespace>:*"
    if command is not None:
        rule = f"+{command[1]}"
    elif "run this command" in said:  # a server that does not say which
        rule = "+@all -@dangerous"
    return f"add the rule that is missing: ACL SETUSER {user[1] if user else '<user>'} {rule}"


def lone_node_error(message: str) -> ServerError:
    """The same for a server whose URL does not say that it is a cluster: a redirection there is a wrong URL."""
    error = reply_error(message)
    if isinstance(error, Moved):
        host, port = error.address
        return CommandRefused(
            f"this server is one node of a cluster ({message}): write redis+cluster://{host}:{port} (with TLS "
            f"rediss+cluster://…) in the URL"
        )
    return error
