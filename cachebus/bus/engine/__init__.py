"""What a worker runs to turn events into effects, once."""
