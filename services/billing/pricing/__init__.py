"""The price book as people see it and add to it."""
