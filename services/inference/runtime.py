"""How the engine is set up on the machine it finds: the CPU, or an NVIDIA GPU."""

from __future__ import annotations

import os
from collections.abc import Iterable, MutableMapping
from pathlib import Path
from typing import Any

from services.inference.config import InferenceConfig

GIB = 2**30
CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")
"""Where a container reads how much of the CPU it may use: microseconds, or `max`, of each period."""


def prepare_environment(sources: Iterable[str], environment: MutableMapping[str, str]) -> None:
    """Set what the engine's libraries read when they are imported; what is set already stays."""
    # Logs are ours to format, and nobody is told that we run.
    quiet = {"VLLM_CONFIGURE_LOGGING": "0", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
    # A forked process would inherit gRPC's threads and locks in an unusable state.
    spawning = {"VLLM_WORKER_MULTIPROC_METHOD": "spawn"}
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"} if all(map(is_folder, sources)) else {}
    for name, value in (quiet | spawning | offline).items():
        environment.setdefault(name, value)


def is_folder(source: str) -> bool:
    """Whether a model's source means a folder; a hub id is `owner/name`."""
    return Path(source).exists() or source.startswith((".", "/", "~")) or source.count("/") != 1


def engine_arguments(config: InferenceConfig, device: str) -> dict[str, Any]:
    """Arguments of the engine for a kind of device, as the engine names it: cpu, cuda."""
    if device != "cpu":
        return {
            "dtype": "auto",
            "enforce_eager": bool(config.enforce_eager),
            "gpu_memory_utilization": config.gpu_memory_fraction,
        }
    return {
        # bfloat16 is emulated on CPUs without AVX512: a third of the speed.
        "dtype": "float32",
        "enforce_eager": config.enforce_eager is not False,
        "kv_cache_memory_bytes": int(config.cpu_kv_gib * GIB),
    }


def bind_cores(config: InferenceConfig, environment: MutableMapping[str, str], quota: Path = CPU_QUOTA) -> None:
    """Keep the engine to the chosen cores, else within the time its container may use.

    Left to itself it leaves one core idle. Its threads wait for each other by spinning, so on a core that it shares
    with busy services it slows down tenfold.
    """
    if config.cpu_cores:
        environment["VLLM_CPU_OMP_THREADS_BIND"] = config.cpu_cores
        return
    granted = granted_cores(quota)
    if granted is not None and granted < len(os.sched_getaffinity(0)):
        # It would count the machine's cores, and take the same ones in every container.
        environment.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
        environment.setdefault("OMP_NUM_THREADS", str(max(1, int(granted) - 1)))


def granted_cores(quota: Path) -> float | None:
    """How many cores' time a container may use; None where nothing limits it."""
    try:
        limit, period = quota.read_text().split()
    except OSError:
        return None
    return None if limit == "max" else int(limit) / int(period)
