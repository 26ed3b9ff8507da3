"""What the traffic says about the cache's settings: recorded, computed, put into sentences."""
