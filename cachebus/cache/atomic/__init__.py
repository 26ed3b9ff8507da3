"""Values that are added, counted and touched in one step on the server."""
