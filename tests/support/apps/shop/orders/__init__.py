"""Handlers of the shop."""
