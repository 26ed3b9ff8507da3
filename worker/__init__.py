"""TradeSense's worker: `python -m worker`."""
