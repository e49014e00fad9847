#!/usr/bin/env bash
# Load one service's main RPC on the mesh that `make up` started.
#   tests/load/run.sh SERVICE [SECONDS] [CLIENTS]
set -euo pipefail
cd "$(dirname "$0")/../.."
mesh=${LLMMESH_VAR:-var}/run/mesh.env
[[ -f $mesh ]] || { echo "no mesh is running ($mesh is missing): make up" >&2; exit 1; }
set -a
# shellcheck source=/dev/null
. "$mesh"
set +a
exec "${PYTHON:-.venv/bin/python}" -m tests.load.one "$1" --seconds "${2:-10}" --clients "${3:-16}"
