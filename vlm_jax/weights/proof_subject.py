"""What a proof is about: a port, the files that it is compared with, and the class that reads them."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from vlm_jax.weights.converted_model import ConvertedModel, convert
from vlm_jax.weights.export import export
from vlm_jax.weights.import_folder import ABOUT, read
from vlm_jax.weights.onnx_file import SUFFIX as ONNX
from vlm_jax.weights.source import Source, as_path, open_source
from vlm_jax.weights.tensor_names import renamed, written


class ProofSubject(NamedTuple):
    """A port and its reference."""

    converted: ConvertedModel
    source: Source
    """The reference's files."""
    oracle: str
    """The class of transformers that loads them, or the network in `torch_cnns`."""
    folder: Path
    """A temporary folder."""


@contextmanager
def proof_subject(
    name: str, *, strip_prefix: str = "", drop_tensors: str = "", class_name: str | None = None
) -> Iterator[ProofSubject]:
    """The subject of a source or of an import's folder.

    The options are those of `read`; what they leave is the reference. That of an import is what it exports.
    """
    changed = {"strip_prefix": strip_prefix, "drop_tensors": drop_tensors}
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        if (as_path(name) / ABOUT).is_file():
            converted = read(name, **changed, class_name=class_name)
            export(converted, place / "source")
            source = open_source(str(place / "source"))
            yield ProofSubject(converted, source, converted.family.class_of(converted.architecture), place)
            return
        source = renamed(open_source(name), **changed)
        converted = convert(source, class_name=class_name)
        if source.changes.lines() or any(tensor.file.suffix == ONNX for tensor in source.tensors.values()):
            source = written(source, place / "renamed")
        yield ProofSubject(converted, source, _oracle(converted), place)


def _oracle(converted: ConvertedModel) -> str:
    """The class that the file names; the trunk where the file lacks its head, and holds a pooler that it has not."""
    named, family = converted.published.name, converted.family
    foreign = set(converted.architecture.parts) - {*family.classes[named].parts, "decoder"}
    return family.trunk if converted.published.missing and foreign else named
