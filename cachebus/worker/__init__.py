"""The process: settings, build, run, drain. Loads the application by name.

Importing this package imports nothing else, so that `cachebus check` answers in a few milliseconds.
"""
