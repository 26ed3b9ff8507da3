"""A FastAPI application whose pages change by themselves."""
