"""Values as bytes and back: what a type is made of, what is never stored."""
