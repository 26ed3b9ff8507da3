"""Runnable examples. `python -m examples.run` is what `make run` starts."""
