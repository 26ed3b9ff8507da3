"""What an event does: one file an area. Policy, no plumbing."""
