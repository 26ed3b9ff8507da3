"""When jobs fire, who runs them, what they warm."""
