"""A model's own tokenizer and chat template."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2.exceptions import TemplateError

from meshkit.errors import FieldInvalid
from services.inference.conversation import Turn
from services.inference.loading import LoadFailed, one_line
from services.inference.pool import Pool
from services.inference.runtime import is_folder
from services.inference.special_tokens import SpecialTokens

THREADS = 2


class ChatTokenizer:
    """Turns conversations into the model's tokens, in threads: a long one takes a while."""

    def __init__(self, source: str, *, max_waiting: int) -> None:
        """Load the tokenizer; takes seconds.

        Raises:
            LoadFailed: If the model has none, or no chat template.
        """
        self._tokenizer = load_tokenizer(source)
        added, template = self._tokenizer.added_tokens_decoder, self._tokenizer.chat_template
        self._special = SpecialTokens.among(added.values(), str(template))
        self._pool = Pool("tokenizer", threads=THREADS, max_callers=max_waiting)

    async def encode(self, turns: Sequence[Turn]) -> list[int]:
        """The tokens of the conversation up to where the model's answer begins.

        Special ones are the template's alone: where a message spells one it is taken apart.

        Raises:
            FieldInvalid: If the model's template refuses the order of the roles or cannot write a tool call, or one is
                nested too deep.
            RateLimited: If too many calls are under way.
        """
        with self._pool.admitted():
            return await self._pool.run(self._encode, turns)

    async def encode_text(self, text: str) -> list[int]:
        """The tokens of a bare text, special ones where it spells them.

        Raises:
            RateLimited: If too many calls are under way.
        """
        with self._pool.admitted():
            return list(await self._pool.run(self._tokenizer.encode, text, add_special_tokens=False))

    def _encode(self, turns: Sequence[Turn]) -> list[int]:
        try:
            harmless = self._special.apart(list(turns))
            tokens = self._tokenizer.apply_chat_template(harmless, add_generation_prompt=True, return_dict=False)
        except (TemplateError, RecursionError, TypeError) as error:  # some take arguments for a text
            raise FieldInvalid("messages", f"do not suit the model's chat template: {error}") from None
        return list(tokens)


def load_tokenizer(source: str) -> Any:
    """Read the tokenizer of a folder or hub id."""
    if is_folder(source) and not Path(source).is_dir():
        raise LoadFailed(f"{source!r} is not a folder; `make models` makes the default model")
    try:
        from transformers import AutoTokenizer

        tokenizer: Any = AutoTokenizer.from_pretrained(source)
    except Exception as error:  # of a file that it cannot read the library says just that
        raise LoadFailed(f"no tokenizer in {source!r}: {one_line(error)}") from error
    if not tokenizer.chat_template:
        raise LoadFailed(f"{source!r} has no chat template; take an instruction-tuned model")
    return tokenizer
