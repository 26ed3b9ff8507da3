"""The form of answers: what a browser may do with them."""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.responses import Response

HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
NO_STORE = {**HEADERS, "Cache-Control": "no-store", "X-Accel-Buffering": "no"}


def json_answer(content: Any, status: int = 200) -> Response:
    """Return *content* as JSON that nobody keeps."""
    return Response(msgspec.json.encode(content, enc_hook=_plain), status, NO_STORE, media_type="application/json")


def _plain(value: object) -> object:
    """Return what msgspec does not know: sets."""
    if isinstance(value, frozenset | set):
        return sorted(value)
    raise NotImplementedError(type(value))
