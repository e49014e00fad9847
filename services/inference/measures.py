"""What the room measures."""

from prometheus_client import Counter, Gauge, Histogram

FIRST_TOKEN_BUCKETS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)

REQUESTS = Gauge(
    "llmmesh_inference_requests", "Questions under way: waiting for their first token, or running.", ["model", "state"]
)
TOKENS = Counter(
    "llmmesh_inference_tokens_total",
    "Tokens of ended answers: input, input read from the cache, output.",
    ["model", "kind"],
)
FIRST_TOKEN_SECONDS = Histogram(
    "llmmesh_inference_first_token_seconds",
    "From the question to the first text.",
    ["model"],
    buckets=FIRST_TOKEN_BUCKETS,
)
READY = Gauge("llmmesh_inference_model_ready", "1 while the model answers.", ["model"])
LOADS = Counter("llmmesh_inference_loads_total", "Engines started, by outcome.", ["model", "outcome"])
EMBEDDED_TEXTS = Counter("llmmesh_inference_embedded_texts_total", "Texts embedded.", ["model"])
SCORED_PAIRS = Counter("llmmesh_inference_scored_pairs_total", "Pairs read by the cross-encoder.", ["scorer"])
