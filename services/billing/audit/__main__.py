"""`python -m services.billing.audit`: the same as `llmmesh-audit`."""

from services.billing.audit.command import main

if __name__ == "__main__":
    main()
