"""The Provider port and its adapters; each adapter speaks to one kind of endpoint."""
