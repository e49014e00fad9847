"""Teams: parts of a tenant."""
