"""The live page: what the cache does, for people. Mounted by the gateway, and by a worker that has a port."""

from gateway.page.access import Access, Visitor, one_use_code
from gateway.page.routes import Page, routes

__all__ = ["Access", "Page", "Visitor", "one_use_code", "routes"]
