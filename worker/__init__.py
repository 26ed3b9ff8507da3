"""The process: settings, build, run, drain. Loads handlers and schedules by name; knows nothing of trades.

Importing this package imports nothing else, so that `python -m worker check` answers in a few milliseconds.
"""
