"""Adapters to frameworks and programs of others."""
