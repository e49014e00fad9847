"""Tells people: alerts are rows that anybody in the room adds in their own transaction; channels carry them out."""
