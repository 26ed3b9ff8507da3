"""How a deployment is: what is known of it, the state in a sentence, and who is told when that changes."""
