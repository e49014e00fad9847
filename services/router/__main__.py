"""`python -m services.router`."""

from meshkit.run import serve
from services.router.app import router
from services.router.config import RouterConfig

if __name__ == "__main__":
    serve("router", RouterConfig, router)
