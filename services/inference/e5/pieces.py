"""Texts as the pieces of words that the model was trained on."""

from __future__ import annotations

import re
import unicodedata

import numpy as np
from numpy.typing import NDArray
from sentencepiece import SentencePieceProcessor
from sentencepiece.sentencepiece_model_pb2 import ModelProto

from services.inference.e5.weights import PackedModel

RAREST, COMMONEST = 12.0, 2.0
"""Beyond these negative logarithms of the frequency all pieces are alike."""
LEAST_RARITY = 0.2
LONGEST_RUN = 30
"""Marks in a row that normalisation has to put in order; no language has more."""
SEPARATOR = "\u034f"
"""The combining grapheme joiner: it shows nothing, and no mark moves past it."""

# Some characters are no marks themselves, but two once they are taken apart. Higher planes have none.
_marks = "".join(
    each for each in map(chr, range(0x20000)) if unicodedata.combining(unicodedata.normalize("NFD", each)[0])
)
_long_run = re.compile(f"[{_marks}]{{{LONGEST_RUN}}}(?=[{_marks}])")


class Pieces:
    """The unigram tokenizer of XLM-RoBERTa; keeps no state, so threads may share it."""

    def __init__(self, model: PackedModel) -> None:
        self._processor = SentencePieceProcessor(model_proto=unigram(model))
        # Some characters have no place in C strings and none in the table: they separate words.
        self._normalisation = {0: " ", **model.normalisation}
        rareness = -model.scores
        rareness[model.unknown] = RAREST
        self._rarity = np.clip(rareness, COMMONEST, RAREST) - COMMONEST + LEAST_RARITY

    def of(self, text: str) -> list[int]:
        """The numbers of the text's pieces, without marks of its beginning and end."""
        normalised = unicodedata.normalize("NFC", stream_safe(text)).translate(self._normalisation)
        pieces: list[int] = self._processor.encode(normalised)
        return pieces

    def rarity(self, pieces: list[int]) -> NDArray[np.float32]:
        """How much each piece says, from 0.2 for the commonest to 10.2."""
        rarity: NDArray[np.float32] = self._rarity[pieces]
        return rarity


def stream_safe(text: str) -> str:
    """The text in Unicode's Stream-Safe Text Format (UAX #15): no run of marks is longer than 30.

    Python orders a run in time that grows with its square, and nothing else runs meanwhile.
    """
    return _long_run.sub(rf"\g<0>{SEPARATOR}", text)


def unigram(model: PackedModel) -> bytes:
    """The tokenizer in SentencePiece's own form."""
    kinds = ModelProto.SentencePiece
    proto = ModelProto()
    proto.trainer_spec.model_type = proto.trainer_spec.UNIGRAM
    proto.trainer_spec.unk_id, proto.trainer_spec.pad_id = model.unknown, model.padding
    proto.trainer_spec.bos_id, proto.trainer_spec.eos_id = model.begin, model.end
    # Marks are never read from a text, however it spells them; the last piece is that of masked words.
    marks = {model.begin, model.end, model.padding, len(model.pieces) - 1}
    for number, (piece, score) in enumerate(zip(model.pieces, model.scores.tolist(), strict=True)):
        kind = kinds.UNKNOWN if number == model.unknown else kinds.CONTROL if number in marks else kinds.NORMAL
        proto.pieces.add(piece=piece, score=score, type=kind)
    serialized: bytes = proto.SerializeToString()
    return serialized
