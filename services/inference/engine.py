"""The vLLM engine: continuous batching in processes of its own."""

from __future__ import annotations

import asyncio
import math
import os
import threading
import uuid
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from llmmesh.chat.v1 import chat_pb2
from meshkit.errors import FieldInvalid
from services.inference.answers import Piece
from services.inference.config import InferenceConfig
from services.inference.loading import LoadCancelled, LoadFailed, one_line
from services.inference.runtime import bind_cores, engine_arguments
from services.inference.sampling import Sampling

CHECK_SECONDS = 0.5
CLOSE_SECONDS = 1.0

FINISH_REASONS = {"stop": chat_pb2.FINISH_REASON_STOP, "length": chat_pb2.FINISH_REASON_LENGTH}


class EngineDied(Exception):
    """The engine is gone, or gave an answer up."""


class Engine:
    """One loaded model. Its calls belong to the event loop, its construction to a thread."""

    def __init__(self, llm: Any) -> None:
        self._llm = llm
        self._defaults = sampling_defaults(llm.model_config)
        self.context_tokens: int = llm.model_config.max_model_len

    async def write(
        self, prompt_tokens: Sequence[int], sampling: Sampling, limit: int, tenant_id: str = ""
    ) -> AsyncGenerator[Piece, None]:
        """Continue the prompt by at most `limit` tokens; what is written while nobody reads comes as one piece.

        Closing the generator or cancelling its reader takes the request out of the engine at once.

        Raises:
            FieldInvalid: If the engine cannot follow the sampling, such as a schema it does not understand.
            EngineDied: If the engine is gone or fails.
        """
        from vllm.exceptions import VLLMClientError
        from vllm.inputs.engine import tokens_input
        from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

        prompt = tokens_input(list(prompt_tokens), cache_salt=tenant_id or None)
        try:
            parameters = sampling_parameters(self._defaults, sampling, limit)
            async with aclosing(self._llm.generate(prompt, parameters, uuid.uuid4().hex)) as outputs:
                async for output in outputs:
                    yield piece_of(output)
        except VLLMClientError as error:
            raise FieldInvalid(field_of(error, sampling), one_line(error)) from None
        except (EngineDeadError, EngineGenerateError) as error:
            raise EngineDied(one_line(error)) from error

    @property
    def alive(self) -> bool:
        """Whether the engine's processes are there."""
        return not self._llm.errored

    async def dead(self) -> None:
        """Wait until the engine's processes are gone; what it was writing then ends with EngineDied."""
        from vllm.v1.engine.exceptions import EngineDeadError

        while self.alive:  # noqa: ASYNC110 - vLLM offers no event to wait for
            await asyncio.sleep(CHECK_SECONDS)
        # vLLM says so itself, unless the task that would is cancelled first: answers would wait for their deadline.
        self._llm.output_processor.propagate_error(EngineDeadError())

    async def close(self) -> None:
        """End the engine's processes; those that do not end by themselves within a second are killed."""
        await asyncio.to_thread(self._llm.shutdown, CLOSE_SECONDS)


def start_engine(name: str, source: str, config: InferenceConfig, cancelled: threading.Event) -> Engine:
    """Import the engine and load a model into it: seconds to minutes.

    Raises:
        LoadFailed: If the model, the machine or the engine's own libraries will not do.
        LoadCancelled: If the flag was set before the engine's processes were started.
    """
    try:
        from vllm.config import StructuredOutputsConfig
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.platforms import current_platform
        from vllm.v1.engine.async_llm import AsyncLLM

        device = current_platform.device_type
        if device == "cpu":
            bind_cores(config, os.environ)
        if cancelled.is_set():
            raise LoadCancelled
        arguments = AsyncEngineArgs(
            model=source,
            served_model_name=name,
            max_model_len=context_limit(source, config.max_model_len),
            max_num_seqs=config.max_running,
            disable_log_stats=True,
            use_tqdm_on_load=False,
            # Free to write white space between the parts of an object, small models write nothing else.
            structured_outputs_config=StructuredOutputsConfig(backend="xgrammar", disable_any_whitespace=True),
            **engine_arguments(config, device),
        )
        return Engine(AsyncLLM.from_engine_args(arguments))
    except LoadCancelled:
        raise
    except Exception as error:
        raise LoadFailed(one_line(error)) from error


def context_limit(source: str, wanted: int) -> int | None:
    """The longest conversation to serve: `wanted`, or what the model was trained for when that is less."""
    from transformers import AutoConfig

    trained: int | None = getattr(AutoConfig.from_pretrained(source).get_text_config(), "max_position_embeddings", None)
    return min(wanted, trained) if wanted and trained else wanted or None


def sampling_defaults(model_config: Any) -> dict[str, Any]:
    """The sampling its makers advise, for what a caller leaves open."""
    defaults: dict[str, Any] = dict(model_config.get_diff_sampling_param())
    defaults.pop("max_tokens", None)
    return defaults


def sampling_parameters(defaults: dict[str, Any], sampling: Sampling, limit: int) -> Any:
    """The engine's own form of the sampling."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

    structured = None
    if sampling.json_schema is not None:
        structured = StructuredOutputsParams(json=sampling.json_schema)
    elif sampling.json_object:
        structured = StructuredOutputsParams(json_object=True)
    elif sampling.regex is not None:
        structured = StructuredOutputsParams(regex=sampling.regex)
    return SamplingParams(
        **{**defaults, **sampling.parameters},
        max_tokens=limit,
        stop=list(sampling.stop),
        structured_outputs=structured,
        logprobs=sampling.first_tokens or None,
        output_kind=RequestOutputKind.DELTA,
    )


def field_of(error: Exception, sampling: Sampling) -> str:
    """The caller's field that an engine's refusal is about."""
    named = getattr(error, "parameter", None)
    if isinstance(named, str):
        return named
    if sampling.regex is not None:
        return "regex"
    return "response_format" if sampling.json_schema is not None or sampling.json_object else "options"


def piece_of(output: Any) -> Piece:
    """Read one output of the engine."""
    written = output.outputs[0]
    first_tokens = probabilities(written.logprobs[0]) if written.logprobs else {}
    if not output.finished:
        return Piece(written.text, len(written.token_ids), first_tokens=first_tokens)
    if written.finish_reason not in FINISH_REASONS:
        raise EngineDied(f"the engine ended the answer with {written.finish_reason!r}")
    return Piece(
        written.text,
        len(written.token_ids),
        finish_reason=FINISH_REASONS[written.finish_reason],
        cached_tokens=output.num_cached_tokens or 0,
        first_tokens=first_tokens,
    )


def probabilities(candidates: Mapping[int, Any]) -> dict[str, float]:
    """What could have been written at one place, likeliest first; tokens of the same text count together.

    The engine fills up with candidates that a grammar rules out; they are not told.
    """
    told: dict[str, float] = {}
    for each in sorted(candidates.values(), key=lambda each: each.logprob, reverse=True):
        text, share = each.decoded_token or "", math.exp(each.logprob)
        if share > 0:
            told[text] = told.get(text, 0.0) + share
    return told
