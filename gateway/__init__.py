"""TradeSense's gateway: `python -m gateway`."""
