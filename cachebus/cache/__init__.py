"""The cache that applications use: views, plain values, and what they are made of."""
