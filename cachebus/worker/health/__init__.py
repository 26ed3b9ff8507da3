"""How a worker says that it lives and works."""
