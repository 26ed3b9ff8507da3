"""A second, tiny application: the worker runs it as it runs the first, by name."""
