"""Settings of the cache."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import SettingsConfigDict

from meshkit.settings import ServiceSettings

SHORTEST_KEY = 16


class CacheConfig(ServiceSettings):
    """Everything that differs between one deployment of the cache and another."""

    model_config = SettingsConfigDict(env_prefix="LLMMESH_CACHE_", frozen=True)

    redis_url: str = Field(default="redis://127.0.0.1:6379/0", pattern="^(redis|rediss|unix)://")
    """Where exact answers are kept: redis://, rediss:// or unix://."""
    redis_timeout_seconds: float = Field(default=0.02, gt=0)
    """Longest that one operation may take; after a failure Redis is asked nothing until a retry is due."""
    redis_pool_size: int = Field(default=8, ge=2)
    """Connections for writes and purges; lookups share one of them."""
    sealing_key: SecretStr = SecretStr("")
    """Secret that entries are sealed with, 16 characters or more, the same for all replicas; another makes every entry
    a miss. Empty takes one made and kept in `qdrant_path`."""
    encryption_key: SecretStr = SecretStr("")
    """Secret that answers are encrypted with at both levels, 16 characters or more, the same for all replicas; another
    makes every entry a miss. Empty: they are sealed but not encrypted."""
    answer_ttl_seconds: float = Field(default=3600, gt=0)
    """How long an answer is kept when the request does not say."""
    longest_ttl_seconds: float = Field(default=30 * 24 * 3600, gt=0)
    """No answer is kept longer, whatever the request or the tenant says."""
    highest_temperature: float = Field(default=1.0, ge=0, le=2)
    """Answers sampled at a higher temperature are neither kept nor shared; 1 is what providers take by default."""
    largest_answer_bytes: int = Field(default=1024 * 1024, gt=0)
    """Larger answers are not kept."""
    qdrant_path: Path = Path("var/data/qdrant")
    """Folder of the embedded vector store; one cache service owns one folder."""
    qdrant_url: str = Field(default="", pattern="^(https?://.+)?$")
    """A Qdrant server to use instead of the embedded store."""
    qdrant_grpc_port: int = Field(default=6334, ge=1, le=65535)
    """Where that server listens for gRPC, on the host of the URL."""
    qdrant_api_key: SecretStr = SecretStr("")
    """Key of that server, when it asks for one."""
    vector_store_timeout_seconds: float = Field(default=0.25, gt=0)
    """Longest that one operation of the vector store may take."""
    embedding_model: str = Field(default="multilingual-e5-small", min_length=1)
    """Name of the embedding model in the inference service."""
    embedding_dimensions: int = Field(default=384, gt=0)
    """Length of its vectors."""
    embedding_timeout_seconds: float = Field(default=0.5, gt=0)
    """Longest that one embedding or one reading of pairs may take; later is a semantic miss."""
    embeddings_kept: int = Field(default=4096, gt=0)
    """Embedded questions kept in memory, 4 KB each, so that storing after a lookup does not embed again; and as many
    scores of pairs."""
    embeddings_at_once: int = Field(default=8, gt=0)
    """Embeddings, and readings of pairs, under way before more questions miss at once."""
    plausible_similarity: float = Field(default=0.40, gt=0, le=1)
    """Least cosine of the sketches of two questions that may ask the same; less, and nothing is embedded."""
    similarity_threshold: float = Field(default=0.88, gt=0, le=1)
    """Least cosine similarity of a semantic candidate; belongs to the embedding model."""
    most_semantic_entries: int = Field(default=100_000, gt=0)
    """Semantic entries kept, of all tenants together; those that save least go first. About 9.5 KB of memory each."""
    semantic_tenant_share: float = Field(default=0.5, gt=0, le=1)
    """Part of them beyond which a tenant's own go before anybody else's. While there is room it may have more."""
    candidates: int = Field(default=6, gt=0)
    """Questions that are judged before a semantic lookup is a miss, of four times as many plausible ones."""
    longest_question_characters: int = Field(default=1000, gt=0)
    """Longer questions are not looked up semantically, nor are those of more than 128 tokens."""
    error_target: float = Field(default=0.01, gt=0, lt=1)
    """Largest rate of wrong semantic hits."""
    copy_seconds: float = Field(default=0.1, ge=0, le=5)
    """How long a gateway may give an exact answer again without asking; purges and reports take that much longer, so
    that none is given after them. 0 has it ask each time."""
    report_seconds: int = Field(default=3600, gt=0)
    """How long after an answer from the cache it may be reported as right or wrong; about 200 bytes of Redis each."""
    evidence_seconds: float = Field(default=2, gt=0)
    """Time between two looks at what tenants reported to other replicas."""
    sweep_seconds: float = Field(default=60, gt=0)
    """Time between two removals of expired semantic answers; Redis removes its own."""

    @field_validator("sealing_key", "encryption_key")
    @classmethod
    def _long_enough(cls, key: SecretStr) -> SecretStr:
        if 0 < len(key.get_secret_value()) < SHORTEST_KEY:
            raise ValueError(f"must have {SHORTEST_KEY} characters or more: `openssl rand -hex 32` makes one")
        return key
