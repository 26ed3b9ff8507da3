"""One read: memory, Redis, or one load in the cluster."""
