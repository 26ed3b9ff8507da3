"""Foresight: what the reads of the past say of those to come, and of the settings."""
