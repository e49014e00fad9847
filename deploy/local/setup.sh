#!/usr/bin/env bash
# Make this checkout runnable: stores, tools and every Python package, checked by hash, into .venv. Harmless to repeat.
set -euo pipefail
cd "$(dirname "$0")/../.."

# The system's own Python comes first: distributions build theirs with profiles, which makes a request a fifth to a third
# cheaper than a plain build that happens to come first on the PATH.
new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }
python=${PYTHON3:-/usr/bin/python3}
[[ -n ${PYTHON3:-} ]] || new_enough "$python" || python=python3
new_enough "$python" || { echo "Python 3.11 or newer is needed" >&2; exit 1; }

# Debian's stores and load generator. Without root or apt, the wheels in the lock stand in for the stores.
if [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null; then
    wanted=(redis-server postgresql nghttp2-client util-linux)
    "$python" -c 'import ensurepip, venv' 2>/dev/null || wanted+=(python3-venv)
    missing=()
    for package in "${wanted[@]}"; do
        dpkg -s "$package" >/dev/null 2>&1 || missing+=("$package")
    done
    if ((${#missing[@]})); then
        echo "installing ${missing[*]}"
        { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -yqq --no-install-recommends "${missing[@]}"; } \
            >/dev/null || echo "apt-get failed: going on with the wheels" >&2
    fi
fi

if ! command -v uv >/dev/null; then
    # Where ensurepip failed, an environment without pip is left.
    .venv/bin/python -m pip --version >/dev/null 2>&1 || "$python" -m venv --clear .venv
    .venv/bin/python -m pip install --quiet --require-hashes -r deploy/docker/installer.lock
    PATH=$PWD/.venv/bin:$PATH
fi
[[ -x .venv/bin/python ]] || uv venv --quiet --python "$python" .venv
install() { uv pip install --quiet --python .venv/bin/python "$@"; }

# torch: the CPU build where pip's own settings offer one, else the registry's with all it needs.
torch=$(sed -n 's/^torch==\([0-9.]*\).*/\1/p' requirements.lock)
links=${UV_FIND_LINKS:-$("$python" -m pip config get global.find-links 2>/dev/null || true)}
lock=$(mktemp)
trap 'rm -f "$lock"' EXIT
if [[ -n $links ]] && install --dry-run --no-deps --find-links "$links" "torch==$torch+cpu" 2>/dev/null; then
    sed "s/^torch==$torch /torch==$torch+cpu /" requirements.lock >"$lock"
    install --no-deps --require-hashes --find-links "$links" -r "$lock"
else
    awk '/^[^ ]/ { torch = /^torch==/ } !torch' requirements.lock >"$lock"
    install --no-deps --require-hashes -r "$lock"
    install "torch==$torch"
fi
install --no-deps --no-build-isolation --offline --editable .
