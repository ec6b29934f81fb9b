"""PyTorch's pickled checkpoints to safetensors: the one place that touches a pickle, and it admits tensors only."""

import json
from pathlib import Path

from vlm_jax.errors import InputError
from vlm_jax.text_lines import first_line
from vlm_jax.weights.source import PICKLES


def convert_pickle(file: Path, output: Path) -> dict[str, tuple[int, ...]]:
    """Write the tensors of a .bin, .pt, .pth or .ckpt file to a .safetensors file; their names and shapes.

    `torch.load` with `weights_only` builds tensors and plain containers and runs nothing else; what it refuses is
    refused here. A file may hold the tensors directly, or one level down as `state_dict` or `model`.
    """
    try:
        import torch
    except ImportError:
        raise InputError('convert needs torch: pip install -e ".[parity]"') from None
    from safetensors.torch import save_file

    if not file.is_file():
        raise InputError(f"{file} is no file; give one that ends in one of {', '.join(PICKLES)}")
    if output.suffix != ".safetensors":
        raise InputError(f"--output {output} must end in .safetensors")
    if output.exists():
        raise InputError(f"{output} is there already; give another --output")
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # an unpickler meets every kind of them
        reason = first_line(error)
        raise InputError(f"{file} holds more than tensors, or is damaged, and was not opened: {reason}") from None
    tensors = _tensors(content, file)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder {output.parent}: {error.strerror}; give another --output") from None
    # Tensors that share memory, as tied ones do, are written out each.
    copies = {name: tensor.contiguous().clone() for name, tensor in tensors.items()}
    save_file(copies, output, metadata={"format": "pt"})
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def _tensors(content: object, file: Path) -> dict[str, "torch.Tensor"]:
    import torch

    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not content:
        raise InputError(f"{file} holds {type(content).__name__}; expected tensors by name")
    others = [name for name, value in content.items() if not isinstance(value, torch.Tensor)]
    if others:
        raise InputError(f"{file} holds {json.dumps(str(others[0]))}, which is no tensor; expected tensors by name")
    for name, tensor in content.items():
        if not isinstance(name, str):
            raise InputError(f"{file} names a tensor {name!r}; expected tensors by name")
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
            raise InputError(f"{name!r} in {file} is sparse, quantised or without its numbers; expected plain tensors")
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise InputError(f"{name!r} in {file} is larger than what the file holds of it: {list(tensor.shape)}")
    return content
