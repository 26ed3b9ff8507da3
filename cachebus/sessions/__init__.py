"""Sessions: ids that only their owner knows."""
