"""`python -m services.cache`."""

from meshkit.run import serve
from services.cache.app import cache
from services.cache.config import CacheConfig

if __name__ == "__main__":
    serve("cache", CacheConfig, cache)
