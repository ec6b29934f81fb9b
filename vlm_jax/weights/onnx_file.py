"""ONNX files as graphs of names and arrays. No operator is run, and no other file is opened. Needs the package onnx."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vlm_jax.errors import InputError
from vlm_jax.text_lines import first_line

if TYPE_CHECKING:
    from onnx import GraphProto, NodeProto, TensorProto

SUFFIX = ".onnx"
ANONYMOUS = "onnx::"
"""What PyTorch's exporter puts before the names of arrays that it turned, and so no longer has a name for."""


class OnnxGraph:
    """The nodes and initializers of a file."""

    def __init__(self, file: Path) -> None:
        """Read `file`; `InputError` where it is damaged, or keeps arrays in another file."""
        try:
            import onnx
            from google.protobuf.message import DecodeError
        except ImportError:
            raise InputError(f"{file} needs the package onnx, which is not installed: pip install onnx") from None
        self.file = file
        try:
            model = onnx.load(file, load_external_data=False)
        except (DecodeError, OSError, ValueError) as error:
            raise InputError(f"{file} is no intact ONNX file: {first_line(error)}") from None
        graph = model.graph
        if not graph.node:
            raise InputError(f"{file} is no intact ONNX file: it has no operators")
        self._refuse_external(onnx.TensorProto.EXTERNAL, graph)
        try:
            onnx.checker.check_model(model)  # operators with the inputs and outputs that they need
        except onnx.checker.ValidationError as error:
            raise InputError(f"{file} is no intact ONNX file: {first_line(error)}") from None
        self._initializers: dict[str, TensorProto] = {tensor.name: tensor for tensor in graph.initializer}
        self._constants: dict[str, TensorProto] = {}
        self.producers: dict[str, NodeProto] = {}
        """The node that computes a value."""
        self.consumers: dict[str, list[NodeProto]] = {}
        """The nodes that read a value."""
        for node in graph.node:
            if node.op_type == "Constant":
                values = [entry.t for entry in node.attribute if entry.name == "value"]
                self._constants |= dict(zip(node.output, values, strict=False))
            self.producers |= dict.fromkeys(node.output, node)
            if node.op_type == "Identity" and node.input[0] in self._initializers:  # equal arrays are written once
                self._initializers[node.output[0]] = self._initializers[node.input[0]]
            for name in node.input:
                self.consumers.setdefault(name, []).append(node)
        self.initializers = {name: tuple(tensor.dims) for name, tensor in self._initializers.items()}
        """The names and shapes of the arrays."""

    def _refuse_external(self, external: int, graph: "GraphProto") -> None:
        constants = [entry.t for node in graph.node if node.op_type == "Constant" for entry in node.attribute]
        for tensor in (*graph.initializer, *constants):
            if tensor.data_location == external or tensor.external_data:
                raise InputError(f"{self.file} keeps {tensor.name!r} in another file; save it as one file (onnx.save)")

    def array(self, name: str) -> np.ndarray | None:
        """An initializer or a constant; None for a value that is computed."""
        from onnx import numpy_helper

        tensor = self._initializers.get(name, self._constants.get(name))
        try:
            return None if tensor is None else numpy_helper.to_array(tensor)
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{self.file} is no intact ONNX file: {name!r}: {first_line(error)}") from None

    def before(self, name: str) -> list["NodeProto"]:
        """Every node that a value depends on."""
        nodes: dict[int, NodeProto] = {}
        open_names = [name]
        while open_names:
            node = self.producers.get(open_names.pop())
            if node is not None and id(node) not in nodes:
                nodes[id(node)] = node
                open_names += node.input
        return list(nodes.values())

    def reads(self, nodes: Iterable["NodeProto"]) -> set[str]:
        """The initializers that some nodes read."""
        return {name for node in nodes for name in node.input if name in self._initializers}
