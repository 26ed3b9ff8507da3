"""The fault matrix: how an application reads, what is invalidated, and what breaks meanwhile: nothing is stale."""
