"""A deployment at full width: four workers that share four shards, and four applications, each in a process."""
