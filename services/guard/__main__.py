"""`python -m services.guard`."""

from meshkit.run import serve
from services.guard.app import guard
from services.guard.config import GuardConfig

if __name__ == "__main__":
    serve("guard", GuardConfig, guard)
