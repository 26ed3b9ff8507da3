"""Publish and subscribe by channel or pattern."""
