"""Exit 0 once every model of this pod answers: one that still loads must not replace one that works.

`python models_ready.py [HOST:PORT]`
"""

from __future__ import annotations

import sys

import grpc

from llmmesh.inference.v1 import inference_pb2
from llmmesh.inference.v1.inference_pb2_grpc import InferenceServiceStub
from meshkit.probe import own_channel


def waiting(target: str) -> list[str]:
    """Names of models that do not answer yet."""
    with own_channel(target) as channel:
        answer = InferenceServiceStub(channel).ListModels(inference_pb2.ListModelsRequest(), timeout=3)
    return [model.name for model in answer.models if model.state != inference_pb2.MODEL_STATE_READY]


if __name__ == "__main__":
    try:
        unready = waiting(sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:50051")
    except grpc.RpcError as error:
        sys.exit(f"no answer yet: {error}")
    sys.exit(f"not ready: {', '.join(unready)}" if unready else 0)
