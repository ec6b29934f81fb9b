"""DINOv2 out of an ONNX file that PyTorch exported from transformers' Dinov2Model, whatever stands on it.

The exporter keeps the names of arrays but for those that it turned: matrices of linear layers are [in, out] there, and
the position table is cut in two. A matrix has the name of the bias that is added to its product. Modules of version 5
have other names than files.
"""

import math
import re
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from vlm_jax.errors import InputError
from vlm_jax.types import Json
from vlm_jax.weights.onnx_file import ANONYMOUS, OnnxGraph

if TYPE_CHECKING:
    from onnx import NodeProto

PATCHES, POSITIONS = "embeddings.patch_embeddings.projection.weight", "embeddings.position_embeddings"
LAST, FIRST_KEY = "layernorm.bias", "encoder.layer.0.attention.attention.key.bias"
FILE_NAMES = {
    ".attention.q_proj.": ".attention.attention.query.",
    ".attention.k_proj.": ".attention.attention.key.",
    ".attention.v_proj.": ".attention.attention.value.",
    ".attention.o_proj.": ".attention.output.dense.",
}
"""What the modules of transformers 5 are called, and the names of files."""
OPERATORS = frozenset(
    {"Add", "Cast", "Concat", "Constant", "ConstantOfShape", "Conv", "Div", "Equal", "Erf", "Expand", "Gather",
     "Identity", "LayerNormalization", "MatMul", "Mul", "Pow", "ReduceMean", "Reshape", "Resize", "Shape", "Slice",
     "Softmax", "Sqrt", "Sub", "Transpose", "Unsqueeze", "Where"}
)  # fmt: skip
"""What the exporter writes a DINOv2 with, its GELU with Erf; another operator would compute something else."""

DOMAINS = ("", "ai.onnx")
"""The two names of ONNX's own operators."""


class Dinov2File(NamedTuple):
    """The published form of what a file holds."""

    tensors: dict[str, np.ndarray]
    """By the names of published files."""
    config: dict[str, Json]
    """The config.json that belongs to them."""
    prefix: str
    """What stood before the names."""
    left: tuple[str, ...]
    """Arrays that the encoder does not depend on."""


def read_dinov2(graph: OnnxGraph) -> Dinov2File:
    """The encoder in a graph; `InputError` where there is none, or one that computes something else."""
    prefix = _prefix(graph)
    nodes = graph.before(_output(graph, prefix + LAST))
    operators = {node.op_type if node.domain in DOMAINS else f"{node.domain}.{node.op_type}" for node in nodes}
    if foreign := sorted(operators - OPERATORS):
        raise InputError(
            f"{graph.file} computes with the operator {foreign[0]}, which an exported Dinov2Model does not have; "
            "export it in float32, without an optimizer of graphs"
        )
    names = graph.reads(nodes)
    anonymous = {name for name in names if name.startswith(ANONYMOUS)}
    named = [name for name in names - anonymous if name.startswith(prefix)]
    tensors = {name.removeprefix(prefix): _array(graph, name) for name in named}
    for node in nodes:
        if node.op_type == "MatMul" and node.input[1] in anonymous:
            anonymous.discard(node.input[1])
            bias = _bias_after(graph, node)
            tensors[bias.removeprefix(prefix).removesuffix("bias") + "weight"] = _array(graph, node.input[1]).T
    tensors = {_file_name(name): array for name, array in tensors.items()}
    if POSITIONS not in tensors:
        tensors[POSITIONS] = _positions(graph, anonymous)
    left = tuple(sorted(set(graph.initializers) - names))
    return Dinov2File(tensors, _config(graph, tensors, nodes, prefix), prefix, left)


def _prefix(graph: OnnxGraph) -> str:
    """What stands before the names of the only encoder."""
    prefixes = [name.removesuffix(PATCHES) for name in graph.initializers if f".{name}".endswith(f".{PATCHES}")]
    if len(prefixes) != 1 or prefixes[0] + LAST not in graph.initializers:
        raise InputError(
            f"{graph.file} holds no DINOv2; of ONNX files those are read that PyTorch exported from a Dinov2Model"
        )
    return prefixes[0]


def _file_name(name: str) -> str:
    """The name that files have for an array of a module."""
    for module, file_name in FILE_NAMES.items():
        name = name.replace(module, file_name)
    return name


def _output(graph: OnnxGraph, bias: str) -> str:
    """The sum that a bias is part of."""
    sums = [node.output[0] for node in graph.consumers.get(bias, ()) if node.op_type in ("Add", "LayerNormalization")]
    if len(sums) != 1:
        raise InputError(f"{graph.file} adds {bias!r} to {len(sums)} values; expected one")
    return sums[0]


def _array(graph: OnnxGraph, name: str) -> np.ndarray:
    array = graph.array(name)
    if array.dtype != np.float32:
        raise InputError(f"{name!r} in {graph.file} is of type {array.dtype}; expected float32")
    return array


def _bias_after(graph: OnnxGraph, product: "NodeProto") -> str:
    """The name of the bias that is added to a product."""
    sums = [node for node in graph.consumers.get(product.output[0], ()) if node.op_type == "Add"]
    biases = [name for node in sums for name in node.input if name in graph.initializers and name.endswith(".bias")]
    if len(biases) != 1:
        raise InputError(f"{graph.file}: nothing says whose weight {product.input[1]!r} is: no bias is added to it")
    return biases[0]


def _positions(graph: OnnxGraph, anonymous: set[str]) -> np.ndarray:
    """The position table: the class token's row, and those of the patches, which the exporter interpolates."""
    parts = sorted((_array(graph, name) for name in anonymous), key=lambda part: part.size)
    shapes = [part.shape for part in parts]
    if len(parts) != 2 or any(part.ndim != 3 for part in parts) or shapes[0][1] != 1 or shapes[0][2] != shapes[1][2]:
        raise InputError(
            f"{graph.file} holds {sorted(anonymous)} of shapes {shapes}; expected the two parts of {POSITIONS}"
        )
    return np.concatenate(parts, axis=1)


def _config(graph: OnnxGraph, tensors: dict[str, np.ndarray], nodes: list["NodeProto"], prefix: str) -> dict[str, Json]:
    width, _, patch_size, _ = _patch_shape(graph, tensors)
    positions = tensors[POSITIONS].shape
    side = math.isqrt(max(0, math.prod(positions[1:2]) - 1))
    if len(positions) != 3 or side**2 + 1 != positions[1]:
        raise InputError(
            f"{graph.file} holds {POSITIONS!r} of shape {list(positions)}; expected [1, 1 + side * side, width]"
        )
    layers = {match[1] for name in tensors if (match := re.match(r"encoder\.layer\.(\d+)\.", name))}
    inner = len(tensors.get("encoder.layer.0.mlp.fc1.bias", ()))
    return {
        "model_type": "dinov2",
        "architectures": ["Dinov2Model"],
        "hidden_size": width,
        "num_hidden_layers": len(layers),
        "num_attention_heads": _heads(graph, prefix, width),
        "mlp_ratio": inner // width if inner % width == 0 else inner / width,
        "hidden_act": "gelu",
        "layer_norm_eps": _epsilon(graph, nodes),
        "patch_size": patch_size,
        "image_size": side * patch_size,
        "num_channels": 3,
    }


def _patch_shape(graph: OnnxGraph, tensors: dict[str, np.ndarray]) -> tuple[int, ...]:
    shape = tensors[PATCHES].shape if PATCHES in tensors else ()
    if len(shape) != 4 or 0 in shape:
        raise InputError(f"{graph.file} holds {PATCHES!r} of shape {list(shape)}; expected [width, 3, pixels, pixels]")
    return shape


def _heads(graph: OnnxGraph, prefix: str, width: int) -> int:
    """Heads, by the last axis of the shape [images, tokens, heads, width of a head] that the first layer's keys get."""
    biases = [name for name in graph.initializers if _file_name(name) == prefix + FIRST_KEY]
    for node in [node for bias in biases for node in graph.consumers.get(_output(graph, bias), ())]:
        shape = graph.producers.get(node.input[1]) if node.op_type == "Reshape" else None
        sides = [graph.array(name) for name in shape.input] if shape is not None and shape.op_type == "Concat" else []
        if len(sides) == 4 and sides[3] is not None and sides[3].dtype == np.int64 and sides[3].size == 1:
            return width // max(1, sides[3].item())
    raise InputError(f"{graph.file} does not say how many heads its attention has")


def _epsilon(graph: OnnxGraph, nodes: list["NodeProto"]) -> float:
    """What every layer norm adds to the variance."""
    epsilons = set()
    for node in nodes:
        before = [graph.producers[name].op_type for name in node.input if name in graph.producers]
        if node.op_type == "Add" and "ReduceMean" in before:
            added = [x for name in node.input if (x := graph.array(name)) is not None and x.size == 1]
            epsilons |= {x.item() for x in added}
        elif node.op_type == "LayerNormalization":
            epsilons |= {entry.f for entry in node.attribute if entry.name == "epsilon"} or {1e-5}  # ONNX's default
    if len(epsilons) != 1:
        raise InputError(f"{graph.file} holds layer norms with {len(epsilons)} epsilons; expected one")
    return float(f"{epsilons.pop():.6g}")  # 1e-6, not the float32 next to it
