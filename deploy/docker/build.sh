#!/usr/bin/env bash
# Build images of the services named, or of all six, as $REPOSITORY/<service>:$TAG.
#   REPOSITORY=registry.example.com/llmmesh TAG=0.1.0 deploy/docker/build.sh gateway router
set -euo pipefail
cd "$(dirname "$0")/../.."
repository=${REPOSITORY:-llmmesh}
tag=${TAG:-latest}
engine=${ENGINE:-cpu}
[[ $# -gt 0 ]] || set -- gateway router cache guard billing inference
for service in "$@"; do
    name=$repository/$service:$tag
    [[ $service != inference ]] || name=$name-$engine
    ${DOCKER:-docker} build -f "deploy/docker/$service.Dockerfile" -t "$name" \
        --build-arg "VERSION=$tag" --build-arg "REVISION=$(git rev-parse HEAD)" \
        $([[ $service != inference ]] || echo --build-arg "ENGINE=$engine") .
done
