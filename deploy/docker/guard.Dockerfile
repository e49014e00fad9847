# docker build -f deploy/docker/guard.Dockerfile -t llmmesh/guard .
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
WORKDIR /app
COPY deploy/docker/installer.lock deploy/docker/install.sh ./
RUN pip install --no-cache-dir --require-hashes -r installer.lock
COPY pyproject.toml requirements.lock ./
RUN --mount=type=cache,target=/root/.cache/uv ./install.sh guard
COPY libs /src/libs
COPY services/guard /src/services/guard
RUN python -m compileall -q /src

FROM ${PYTHON_IMAGE}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="llmmesh guard" \
      org.opencontainers.image.description="Judges prompts and answers, classifies their data" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# The one place a service may write; everything else works on a read-only root.
RUN install -d -o 65532 -g 65532 /var/lib/llmmesh
COPY --from=build /opt/venv /opt/venv
COPY --from=build /src /app
COPY LICENSE /app/
WORKDIR /app
ENV PATH=/opt/venv/bin:$PATH PYTHONPATH=/app:/app/libs PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 65532:65532
EXPOSE 50051 9090
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 \
    CMD ["python", "-m", "meshkit.probe", "127.0.0.1:50051"]
ENTRYPOINT ["python", "-m", "services.guard"]
