"""The strategy's "what not to cache": field names that no cache of this application ever stores."""

from __future__ import annotations

NEVER_CACHED = (
    # personal data
    *("email", "phone", "phone_number", "date_of_birth", "home_address", "passport_number"),
    *("credit_card", "card_number", "cvv", "ssn", "social_security_number"),
    # transactional: the ledger of record answers these
    *("balance", "account_balance", "order_status", "execution", "executions", "trade_executions"),
    # real-time: old is wrong
    *("live_price", "order_book", "market_depth"),
)
"""Beside credentials, which the library refuses by itself."""
