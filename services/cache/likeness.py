"""What the semantic level would see in the questions of a log: by the embedding model, or guessed from words."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from llmmesh.inference.v1 import inference_pb2
from services.cache.config import CacheConfig
from services.cache.embedding import packed_tokens
from services.cache.simulation import UNSURE, Difference, Vectors
from services.cache.verification.alignment import DEPTHS, TokenVectors
from services.cache.verification.courtesy import without_courtesy
from services.cache.verification.verifier import Candidate, Phrased, Verifier, calibrated
from services.cache.verification.words import tokens
from wordvectors import WordVectors

if TYPE_CHECKING:
    from llmmesh.inference.v1.inference_pb2_grpc import InferenceServiceAsyncStub

LogOdds: TypeAlias = Callable[[str, str], float]
"""How surely two questions ask the same: the natural logarithm of the odds."""

BATCH = 64
EMBED_SECONDS = 120.0
GUESSED_LEAST, GUESSED_SLOPE = 0.83, 0.134
"""By the cosine of words, the accurate one is this much or more for 3 of 4 pairs of the training questions."""
RARITY_OF_WEIGHT = 8.0
"""What the weight of a word is in the measure of the rarity of tokens."""


@dataclass(frozen=True, slots=True)
class Likeness:
    """The questions of a log as the semantic level compares them."""

    vectors: Vectors
    tokens: Mapping[str, TokenVectors]
    by_model: bool
    """Whether the embedding model made them; else they stand in for its vectors."""


def guessed(questions: Sequence[str]) -> Likeness:
    """Vectors of words stand in for those of the embedding model."""
    table = WordVectors.packaged()
    rows = table.embed_all([*map(without_courtesy, questions)])
    return Likeness(
        dict(zip(questions, rows, strict=True)), {question: _of_words(question, table) for question in questions}, False
    )


async def embedded(questions: Sequence[str], inference: InferenceServiceAsyncStub, model: str) -> Likeness:
    """Ask the embedding model."""
    made: dict[str, inference_pb2.Embedding] = {}
    for start in range(0, len(questions), BATCH):
        texts = questions[start : start + BATCH]
        request = inference_pb2.EmbedTextRequest(
            model=model,
            texts=map(without_courtesy, texts),
            purpose=inference_pb2.EMBEDDING_PURPOSE_QUERY,
            token_vectors=True,
        )
        answer = await inference.EmbedText(request, timeout=EMBED_SECONDS)
        made.update(zip(texts, answer.embeddings, strict=True))
    return Likeness(
        {text: np.array(embedding.values, dtype=np.float32) for text, embedding in made.items()},
        {text: TokenVectors.unpacked(packed_tokens(embedding)) for text, embedding in made.items()},
        True,
    )


def difference_by(likeness: Likeness, log_odds_of: LogOdds | None = None) -> Difference:
    """What keeps two questions apart.

    Without a cross-encoder the forest alone decides; the accurate cosine is guessed low where no model made it.
    """
    verifier, table = Verifier(), WordVectors.packaged()
    threshold = calibrated(target=CacheConfig().error_target).state("").threshold

    def difference(asked: str, stored: str) -> str | None:
        refusal = verifier.refusal(asked, stored)
        if refusal:
            return refusal
        outline = float(table.embed(without_courtesy(asked)) @ table.embed(without_courtesy(stored)))
        cosine = float(likeness.vectors[asked] @ likeness.vectors[stored])
        similarity = cosine if likeness.by_model else GUESSED_LEAST + GUESSED_SLOPE * outline
        candidate = Candidate(Phrased(stored, likeness.tokens[stored]), similarity=similarity, outline=outline)
        (estimate,) = verifier.estimates(Phrased(asked, likeness.tokens[asked]), [candidate])
        return None if is_served(asked, stored, estimate) else UNSURE

    def is_served(asked: str, stored: str, estimate: float) -> bool:
        weighing = verifier.weighing
        if log_odds_of is None:
            return estimate >= weighing.alone_from
        if estimate < weighing.asked_from:
            return False
        return weighing.certainty(estimate, log_odds_of(asked, stored)) >= threshold

    return difference


def _of_words(question: str, table: WordVectors) -> TokenVectors:
    """The words of a question in the place of its tokens, the same at every depth."""
    words = [token.text for token in tokens(without_courtesy(question))]
    rows = table.embed_all(words) if words else np.zeros((0, table.dimensions), dtype=np.float32)
    largest = np.abs(rows).max(axis=1, keepdims=True, initial=1e-6)
    states = np.rint(rows / largest * 127).astype(np.int8)[:, None].repeat(len(DEPTHS), axis=1)
    rarities = [RARITY_OF_WEIGHT * table.weight(word) for word in words]
    return TokenVectors("words", states, np.maximum(np.array(rarities, dtype=np.float32), 0.2))
