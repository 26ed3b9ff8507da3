"""The domain: tables, cached views, events."""
