"""What is kept warm, and when. Policy, no plumbing."""
