"""`python -m services.guard`."""

from meshkit.run import serve
from services.guard.app import guard
from services.guard.config import GuardConfig


def main() -> None:
    """Serve until SIGTERM."""
    serve("guard", GuardConfig, guard)


if __name__ == "__main__":
    main()
