"""Who asks, what may they spend, what happened: tenants, keys, budgets, ledger, audit."""
