#!/usr/bin/env bash
# Build images of the services named, or of all six, as $REPOSITORY/<service>:$TAG; without TAG as this version, which
# the chart asks for, and as latest.
#   REPOSITORY=registry.example.com/llmmesh TAG=0.1.0 deploy/docker/build.sh gateway router
set -euo pipefail
cd "$(dirname "$0")/../.."
repository=${REPOSITORY:-llmmesh}
version=${TAG:-$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)}
tags=("$version")
[[ -n ${TAG:-} ]] || tags+=(latest)
engine=${ENGINE:-cpu}
[[ $# -gt 0 ]] || set -- gateway router cache guard billing inference
for service in "$@"; do
    suffix=
    [[ $service != inference ]] || suffix=-$engine
    names=()
    for tag in "${tags[@]}"; do names+=(-t "$repository/$service:$tag$suffix"); done
    ${DOCKER:-docker} build -f "deploy/docker/$service.Dockerfile" "${names[@]}" \
        --build-arg "VERSION=$version" --build-arg "REVISION=$(git rev-parse HEAD)" \
        $([[ $service != inference ]] || echo --build-arg "ENGINE=$engine") .
done
