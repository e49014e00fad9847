"""`python -m services.billing`."""

from meshkit.run import serve
from services.billing.app import billing
from services.billing.config import BillingConfig

if __name__ == "__main__":
    serve("billing", BillingConfig, billing)
