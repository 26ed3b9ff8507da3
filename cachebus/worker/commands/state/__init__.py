"""Commands that only look, at the state of a deployment."""
