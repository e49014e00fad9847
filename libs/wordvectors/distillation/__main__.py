"""Distil the table; `make distill-embedder` says how to call it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from wordvectors.distillation.teacher import Teacher
from wordvectors.distillation.vocabulary import Term, silent_tokens, terms

DIMENSIONS = 128
COMMON = 1e-3
"""A word as frequent as this counts half (smooth inverse frequency)."""
SHARED_DIRECTIONS = 1
"""Principal directions that all words share, and which therefore tell nothing apart."""
UNKNOWN = "[UNK]"
LONGEST_WORD = 64


def main() -> None:
    """Write tokenizer.json, rows.npy and scales.npy."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--into", type=Path, required=True, help="folder of the table")
    parser.add_argument("--kept", type=Path, required=True, help="file of the teacher's vectors, made when missing")
    arguments = parser.parse_args()
    rows = terms()
    vectors = Teacher(arguments.kept).embed([term.text for term in rows])
    silent = [token for token in silent_tokens() if token not in {term.token for term in rows}]
    tokens = [*(term.token for term in rows), *dict.fromkeys(silent), UNKNOWN]
    arguments.into.mkdir(parents=True, exist_ok=True)
    _tokenizer(tokens).save(str(arguments.into / "tokenizer.json"), pretty=False)
    compact, scales = _quantised(_reduced(vectors), _weights(rows))
    beyond = len(tokens) - len(rows)
    np.save(arguments.into / "rows.npy", np.pad(compact, ((0, beyond), (0, 0))))
    np.save(arguments.into / "scales.npy", np.pad(scales, (0, beyond)))
    sys.stdout.write(f"{len(rows)} words and pieces, {beyond} silent tokens in {arguments.into}\n")


def _weights(rows: Sequence[Term]) -> NDArray[np.float32]:
    """What each term counts; endings count nothing, whatever the teacher says of them."""
    silent = set(silent_tokens())
    weighed = [0.0 if term.token in silent else COMMON / (COMMON + term.frequency) for term in rows]
    return np.array(weighed, dtype=np.float32)


def _reduced(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Centre, turn to the principal directions less those all share, cut, and bring to length 1."""
    centred = vectors - vectors.mean(axis=0)
    _, _, directions = np.linalg.svd(centred, full_matrices=False)
    turned = centred @ directions[SHARED_DIRECTIONS : SHARED_DIRECTIONS + DIMENSIONS].T
    reduced: NDArray[np.float32] = turned / np.linalg.norm(turned, axis=1, keepdims=True)
    return reduced


def _quantised(
    vectors: NDArray[np.float32], weights: NDArray[np.float32]
) -> tuple[NDArray[np.int8], NDArray[np.float16]]:
    """One byte a number, and for each row what to multiply it by, its weight included."""
    largest = np.abs(vectors).max(axis=1)
    compact = np.rint(vectors / largest[:, None] * 127).astype(np.int8)
    return compact, (weights * largest / 127).astype(np.float16)


def _tokenizer(tokens: Sequence[str]) -> Tokenizer:
    """Longest piece first: the stem, then endings that weigh nothing."""
    numbered = {token: number for number, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.WordPiece(numbered, unk_token=UNKNOWN, max_input_chars_per_word=LONGEST_WORD))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Lowercase(), normalizers.Replace("ё", "е")]
    )
    digits = pre_tokenizers.Digits(individual_digits=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.BertPreTokenizer(), digits])
    return tokenizer


if __name__ == "__main__":
    main()
