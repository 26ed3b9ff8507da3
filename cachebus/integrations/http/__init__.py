"""Cached values as HTTP responses, for every framework: what is sent, and when the answer is 304."""
