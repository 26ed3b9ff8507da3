"""TradeSense, the example domain: real prices, trades, figures computed from them, and the views that cache them."""
