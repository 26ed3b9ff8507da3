"""The live page: what the cache does, for people. Mounted by the gateway, and by a worker that has a port."""

from cachebus.monitoring.page.access import Access, Viewer
from cachebus.monitoring.page.routes import LivePage, routes
from cachebus.monitoring.sign_in import one_use_code

__all__ = ["Access", "LivePage", "Viewer", "one_use_code", "routes"]
