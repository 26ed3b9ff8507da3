"""Who may follow what. Pure.

`user:<id>`, and everything below it, belongs to that user. Topics that a pattern names are for everyone who is signed
in. Nothing else may be followed: a topic that nobody thought of is nobody's.
"""

from __future__ import annotations

from collections.abc import Sequence

from cachebus.errors import ConfigurationError
from cachebus.freshness.scopes import names
from cachebus.gateway.protocol import LONGEST_TOPIC
from cachebus.sessions.session import UserId

PRIVATE = "user"


class Rules:
    """The rules of one gateway. A pattern is a topic, or words that end in `:*`."""

    def __init__(self, public: str | Sequence[str] = ()) -> None:
        public = names(public)
        for pattern in public:
            words = pattern.removesuffix(":*")
            if not words or "*" in words or words.partition(":")[0] == PRIVATE:
                raise ConfigurationError(
                    f"public topics: {pattern!r} is neither a topic nor words ending in ':*', or begins with 'user'"
                )
        self._exact = frozenset(pattern for pattern in public if not pattern.endswith(":*"))
        self._below = tuple(pattern.removesuffix("*") for pattern in public if pattern.endswith(":*"))

    def refusal(self, topic: str, user_id: UserId) -> str | None:
        """Return why this user may not follow *topic*; None: the user may."""
        if not topic or len(topic) > LONGEST_TOPIC or not topic.isprintable():
            return f"a topic is 1 to {LONGEST_TOPIC} printable characters"
        kind, _, rest = topic.partition(":")
        if kind == PRIVATE:
            of_user = rest == str(user_id) or rest.startswith(f"{user_id}:")
            return None if of_user and ":" not in str(user_id) else "it belongs to another user"
        if topic in self._exact or (topic.startswith(self._below) and not topic.endswith(":")):
            return None
        return "no rule makes it public"
