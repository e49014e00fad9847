#!/usr/bin/env bash
# Install one extra's packages into /opt/venv: its closure out of the lock and nothing else, every file checked by hash.
# An extra with a lock of its own (inference-gpu.lock) is that lock. `uv` is taken from PATH.
#   install.sh EXTRA      VENV=/other/place moves the environment
set -euo pipefail
extra=$1
venv=${VENV:-/opt/venv}
here=$(dirname "$0")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# The package registry's own torch wants CUDA.
[[ $extra == inference-cpu && -z ${UV_FIND_LINKS:-} ]] && export UV_TORCH_BACKEND=cpu
uv venv --quiet --python 3.11 "$venv"
if [[ -f "$here/$extra.lock" ]]; then
    cp "$here/$extra.lock" "$work/install.txt"
else
    uv pip compile pyproject.toml --quiet --python "$venv/bin/python" --no-header --no-annotate \
        --extra "$extra" --constraints requirements.lock >"$work/closure.txt"
    # Names and versions of the closure, hashes of the lock. A build's own version suffix (torch's "+cpu") stays.
    awk -F'==' 'NR == FNR { wanted[$1] = $0; next }
                /^[a-z0-9]/ { keep = $1 in wanted; if (keep) { print wanted[$1] " \\"; next } }
                keep' "$work/closure.txt" requirements.lock >"$work/install.txt"
    missing=$(comm -23 <(cut -d= -f1 "$work/closure.txt" | sort) <(grep -oE '^[a-z0-9][a-z0-9._-]*' "$work/install.txt" | sort))
    [[ -z $missing ]] || { echo "not in requirements.lock (run deploy/lock.sh):" $missing >&2; exit 1; }
fi
uv pip install --quiet --python "$venv/bin/python" --no-deps --require-hashes --compile-bytecode -r "$work/install.txt"
