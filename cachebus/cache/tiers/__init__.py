"""Where entries are kept: memory and Redis."""
