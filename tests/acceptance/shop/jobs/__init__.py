"""Jobs of the shop: none."""
