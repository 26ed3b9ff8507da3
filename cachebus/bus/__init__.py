"""Events, what handlers make of them, and the feed of broadcasts."""
