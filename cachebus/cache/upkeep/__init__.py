"""What keeps a cache in good order: warming, popularity, sweeping, sampling, reporting."""
