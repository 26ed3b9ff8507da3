"""Who receives which broadcast, and what they missed."""
