"""Jobs that start exactly once across workers."""
