#!/usr/bin/env bash
# Lint the chart, render it with every variant of values and judge each object. Helm is fetched on the first run.
set -euo pipefail
cd "$(dirname "$0")/../.."
deploy/k8s/helm.sh version --short >/dev/null
exec ${PYTHON:-.venv/bin/python} -m pytest -q tests/ships/test_chart.py tests/ships/test_chart_values.py "$@"
