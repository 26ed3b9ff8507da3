"""A command that fails in a script: each make of server words it in its own way, and it is the same error.

Redis 6.2 has other words yet where a script hands on what `pcall` returned. The words are those of Redis 6.2.13,
Redis 7.0.15 and Valkey 9; `make servers` asks the servers themselves.
"""

from __future__ import annotations

import pytest

from cachebus.errors import AccessDenied, CommandRefused, ReadOnlyServer, ServerError, ServerOutOfMemory, WrongType
from cachebus.redis.replies import remedy, reply_error

SIX = "ERR Error running script (call to f_0a9f75e991483d02789696e4c90d26c10395863e): @user_script:7: "
SEVEN = " script: 0a9f75e991483d02789696e4c90d26c10395863e, on @user_script:1."
FULL = "OOM command not allowed when used memory > 'maxmemory'."
REPLICA = "READONLY You can't write against a read only replica."
OTHER_TYPE = "WRONGTYPE Operation against a key holding the wrong kind of value"
COMMAND = "The user executing the script can't run this command or subcommand"
KEY = "The user executing the script can't access at least one of the keys mentioned in the command arguments"


@pytest.mark.parametrize(
    ("message", "error"),
    [
        (f"{SIX}@user_script: 7: -{FULL}", ServerOutOfMemory),
        (f"@user_script: 7: -{FULL}", ServerOutOfMemory),
        (f"{FULL}{SEVEN}", ServerOutOfMemory),
        (f"{SIX}@user_script: 7: -{REPLICA}", ReadOnlyServer),
        (f"{REPLICA}{SEVEN}", ReadOnlyServer),
        (f"{SIX}{OTHER_TYPE}", WrongType),
        (f"{OTHER_TYPE}{SEVEN}", WrongType),
        (f"{SIX}@user_script: 7: {COMMAND}", AccessDenied),
        (f"{COMMAND}{SEVEN}", AccessDenied),
        (f"{SIX}@user_script: 7: {KEY}", AccessDenied),
        (f"ACL failure in script: User u has no permissions to run the 'set' command{SEVEN}", AccessDenied),
        (f"{SIX}@user_script: 7: attempt to index a nil value", CommandRefused),
    ],
)
def test_what_a_server_refuses_a_script_is_the_same_error(message: str, error: type[ServerError]) -> None:
    """OOM and READONLY are waited out, a refusal by access rules is said to a person: on every server."""
    assert type(reply_error(message)) is error


@pytest.mark.parametrize(
    ("message", "rule"),
    [
        (f"{COMMAND}{SEVEN}", "+@all -@dangerous"),
        (f"{KEY}{SEVEN}", "~{<namespace>}:* ~<namespace>:*"),
        (f"ACL failure in script: User u has no permissions to run the 'set' command{SEVEN}", "+set"),
    ],
)
def test_the_rule_that_is_missing_is_said(message: str, rule: str) -> None:
    """Not that the password is wrong."""
    denied = reply_error(message)
    assert isinstance(denied, AccessDenied)
    assert rule in remedy(denied)
