"""Invalidate and publish with a SQLAlchemy transaction."""
