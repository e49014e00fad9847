"""How fast callers may ask."""
