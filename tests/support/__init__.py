"""What several tests use: waiting for facts, programs to run, servers to watch, models to compare with."""
