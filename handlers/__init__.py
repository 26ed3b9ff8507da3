"""What an event does. Policy, no plumbing: a handler turns an event into effects and touches nothing itself."""
