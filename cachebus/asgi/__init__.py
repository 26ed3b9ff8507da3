"""ASGI middleware for any framework: rate limits with their headers, and sessions with their cookie."""

from cachebus.asgi.address import client_address
from cachebus.asgi.limits import RateLimitMiddleware, Rule
from cachebus.asgi.sessions import RequestSession, SessionMiddleware

__all__ = ["RateLimitMiddleware", "RequestSession", "Rule", "SessionMiddleware", "client_address"]
