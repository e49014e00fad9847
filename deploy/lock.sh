#!/usr/bin/env bash
# Resolve pyproject.toml into requirements.lock: every package pinned and hashed, no host named.
# torch keeps one version with the hashes of both builds: the CPU wheel where one is offered, else the registry's.
set -euo pipefail
cd "$(dirname "$0")/.."
find_links=${UV_FIND_LINKS:-$(python3 -m pip config get global.find-links 2>/dev/null || true)}
compile() { uv pip compile - --quiet --python-version 3.11 --no-header --no-annotate --generate-hashes \
    --no-emit-index-url --no-emit-find-links "$@"; }
registry_torch=$(echo 'torch==2.13.0' | compile --no-deps | tail -n +2)
uv pip compile pyproject.toml --quiet --python-version 3.11 --no-header --no-annotate --generate-hashes \
    --no-emit-index-url --no-emit-find-links ${find_links:+--find-links "$find_links"} --group dev \
    --extra gateway --extra router --extra cache --extra guard --extra billing --extra inference-cpu --extra local \
    -o requirements.lock "$@" >/dev/null
python3 - "$registry_torch" <<'PY'
import pathlib, re, sys
lock = pathlib.Path("requirements.lock")
text = re.sub(r"^torch==2\.13\.0\S* \\\n((?:    --hash.*\n)+)",
              lambda m: "torch==2.13.0 \\\n" + m[1].rstrip("\n") + " \\\n" + sys.argv[1].rstrip() + "\n",
              lock.read_text(), flags=re.M)
lock.write_text(text)
PY
