"""ASGI middleware for any framework: rate limits with their headers, and sessions with their cookie."""

from cachebus.integrations.asgi.address import client_address
from cachebus.integrations.asgi.limits import RateLimitMiddleware, Rule
from cachebus.integrations.asgi.sessions import RequestSession, SessionMiddleware

__all__ = ["RateLimitMiddleware", "RequestSession", "Rule", "SessionMiddleware", "client_address"]
