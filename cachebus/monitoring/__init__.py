"""What an operator asks: histories, workers, events, keys, and the live page."""
