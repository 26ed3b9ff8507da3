"""Sends a message to a webhook: one POST, no redirect, a deadline; what fails is tried again at the next look."""

from __future__ import annotations

import asyncio
import urllib.error
import urllib.request
from http.client import HTTPException
from urllib.parse import urlsplit

from cachebus.monitoring.verdict.alerting import AlertMessage, json_form, slack_form

TIMEOUT_S = 10.0


class NotDelivered(Exception):
    """A message was not taken; the text says why, and holds nothing of the URL, which is a secret."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        """Follow none: whoever is told was named by the operator."""


class Webhook:
    """One address."""

    def __init__(self, url: str, form: str = "") -> None:
        """*form*: `json` or `slack`; '' for what the host takes."""
        self._url = url
        slack = form == "slack" or (not form and urlsplit(url).hostname == "hooks.slack.com")
        self._encode = slack_form if slack else json_form
        self._opener = urllib.request.build_opener(_NoRedirect)

    async def send(self, alert: AlertMessage) -> None:
        """Send. Raises: NotDelivered."""
        await asyncio.to_thread(self._post, self._encode(alert))

    def _post(self, body: bytes) -> None:
        headers = {"Content-Type": "application/json", "User-Agent": "cachebus"}
        asked = urllib.request.Request(self._url, body, headers, method="POST")  # noqa: S310 - the setting takes http and https only
        try:
            with self._opener.open(asked, timeout=TIMEOUT_S):
                pass
        except urllib.error.HTTPError as refused:
            refused.close()
            raise NotDelivered(f"the webhook answers {refused.code}") from None
        except (OSError, HTTPException, ValueError) as failed:
            raise NotDelivered(f"the webhook cannot be reached: {type(failed).__name__}") from None
