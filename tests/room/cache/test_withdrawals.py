"""A purged answer that was only just written goes, also when its store was away at that moment."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from llmmesh.cache.v1 import cache_pb2
from meshkit.identity import Identity, acting_as
from tests.support.cache_calls import SEMANTIC, lookup, on_its_way, prompt
from tests.support.fix_redis import RedisProcess
from tests.support.scripted_embeddings import ScriptedEmbeddings
from tests.support.waiting import until

ACME = Identity(tenant_id="acme", key_id="k1", roles=frozenset({"operator"}))
QUESTION = "How high is the Matterhorn?"
GIVEN_UP_SECONDS = 1.0
"""Longer than an answer that is to be stored is tried again."""


@contextmanager
def nobody_owns_the_store(folder: Path) -> Iterator[None]:
    """Its process is killed, and no other can take its place."""
    (lock,) = folder.glob("*/owner")
    with lock.open() as file:
        os.kill(int(file.read()), signal.SIGKILL)
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


async def test_a_purged_answer_is_withdrawn_once_its_store_is_back(
    configure: Any, serve: Any, redis_process: RedisProcess, embeddings: ScriptedEmbeddings, tmp_path: Path
) -> None:
    async def is_found() -> bool:
        return bool((await stub.LookupAnswer(lookup(prompt(QUESTION), SEMANTIC))).HasField("answer"))

    config = configure(redis_url=redis_process.url, qdrant_path=tmp_path / "qdrant")
    async with serve(config) as stub:
        with acting_as(ACME):
            async with on_its_way(stub, embeddings, QUESTION) as storing:
                await stub.PurgeAnswers(cache_pb2.PurgeAnswersRequest())
                redis_process.freeze()  # so that whoever stored it hears of the purge later
            await until(is_found)
            with nobody_owns_the_store(tmp_path / "qdrant"):
                redis_process.thaw()
                done, _ = await asyncio.wait({storing}, timeout=GIVEN_UP_SECONDS)
                assert not done
            assert SEMANTIC not in (await storing).levels
            assert not await is_found()
