#!/usr/bin/env bash
# Bring the Envoy configurations inside the chart up to date; @fullname@ becomes the prefix of object names.
set -euo pipefail
cd "$(dirname "$0")/../.."
render() {
    ${PYTHON:-.venv/bin/python} -m deploy.envoy.render --target kubernetes --release @fullname@ --otlp-endpoint "" \
        -o "deploy/k8s/llmmesh/files/$1"
}
render envoy.yaml
tls=/etc/llmmesh-tls
LLMMESH_TLS_CERTIFICATE=$tls/tls.crt LLMMESH_TLS_KEY=$tls/tls.key LLMMESH_TLS_AUTHORITY=$tls/ca.crt \
    render envoy-mtls.yaml
