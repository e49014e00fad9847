"""The rooms the gateway calls, one adapter each: calls with deadlines, failures in the gateway's own words."""
