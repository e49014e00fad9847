"""Which of several versions of a route is better: requests are split between them, and outcomes compared."""
