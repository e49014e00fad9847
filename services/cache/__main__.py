"""`python -m services.cache`."""

from meshkit.run import serve
from services.cache.app import cache
from services.cache.config import CacheConfig


def main() -> None:
    """Serve until SIGTERM."""
    serve("cache", CacheConfig, cache)


if __name__ == "__main__":
    main()
