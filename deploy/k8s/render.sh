#!/usr/bin/env bash
# Bring the Envoy configuration inside the chart up to date; @fullname@ becomes the prefix of object names.
set -euo pipefail
cd "$(dirname "$0")/../.."
${PYTHON:-.venv/bin/python} -m deploy.envoy.render --target kubernetes --release @fullname@ --otlp-endpoint "" \
    -o deploy/k8s/llmmesh/files/envoy.yaml
