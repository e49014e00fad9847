"""A random Llama of a few megabytes with the tokenizer of SmolLM2: a real model for fast engine tests."""

import os
import sys
from pathlib import Path

from services.inference.models import SMOLLM2, packaged_file

CONTEXT_TOKENS = 2048
"""Longest conversation the tiny model takes."""


def write_tiny_model(folder: Path) -> Path:
    """Make the model folder; it speaks nonsense, the same nonsense every time."""
    os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", TQDM_DISABLE="1")
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    packaged = packaged_file(SMOLLM2)
    tokenizer = AutoTokenizer.from_pretrained(packaged.parent, gguf_file=packaged.name)
    torch.manual_seed(1)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            max_position_embeddings=CONTEXT_TOKENS,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            tie_word_embeddings=True,
        )
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


if __name__ == "__main__":
    write_tiny_model(Path(sys.argv[1]))
