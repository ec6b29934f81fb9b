"""The proof of a port: our model and the published one on the same input, layer by layer.

The reference is the class of transformers that the file names, in float64; for CNNs that transformers does not have, it
is the published network in plain PyTorch functions (`torch_cnns`). What could not be compared is named, and is no PASS.
"""

import math
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import jax
import numpy as np

from vlm_jax.config.encoders import PublishedCNN
from vlm_jax.models.pretrained import ImageClassifier
from vlm_jax.weights.checks import CNN_BOUND, Check, comparison, not_installed, score
from vlm_jax.weights.converted_model import ConvertedModel, convert
from vlm_jax.weights.export import export, write_export
from vlm_jax.weights.family import Names, is_untied, table_names, unused_biases
from vlm_jax.weights.import_folder import ABOUT, read
from vlm_jax.weights.source import WEIGHTS, Source, Tensors, as_path, open_source
from vlm_jax.weights.tensor_names import renamed, written
from vlm_jax.weights.text_proof import compare_encoder, compare_tokenizers

OUTPUTS = {
    "pooler": "pooled", "words": "masked words", "pairs": "sentence pairs", "answers": "answers",
    "classifier": "logits", "sequence": "text classes", "tokens": "token classes", "spans": "spans",
    "replaced": "replaced tokens",
}  # fmt: skip


def verify(
    name: str, *, strip_prefix: str = "", drop_tensors: str = "", class_name: str | None = None
) -> Iterator[Check]:
    """The checks of a source or of an import's folder, one after the other.

    The options are those of `read`; what they leave is the reference.
    """
    changed = {"strip_prefix": strip_prefix, "drop_tensors": drop_tensors}
    with tempfile.TemporaryDirectory() as temporary:
        folder, place = as_path(name), Path(temporary)
        if (folder / ABOUT).is_file():  # its reference is what it exports
            converted = read(name, **changed, class_name=class_name)
            export(converted, place / "source")
            source = open_source(str(place / "source"))
            oracle = converted.family.class_of(converted.architecture)
        else:
            source = renamed(open_source(name), **changed)
            converted = convert(source, class_name=class_name)
            if source.changes.lines():
                source = written(source, place / "renamed")
            oracle = _oracle(converted)
        for line in converted.class_lines:
            key, _, value = line.partition(": ")
            yield Check(key, value, "note")
        for line in converted.changes.lines():
            yield Check("tensor names", line, "not compared" if line.startswith("warning: ") else "note")
        where = "transformers'" if converted.family.in_transformers else "torch_cnns', in plain PyTorch functions:"
        yield Check("compared with", f"{where} {oracle}", "note")
        yield _round_trip(converted, source, place / "again")
        yield from _compare_outputs(converted, source, oracle, place / "model")
        yield from _absent(converted)


def _oracle(converted: ConvertedModel) -> str:
    """The class that the file names; the trunk where it lacks its head, and holds a pooler that the class has not."""
    named, family = converted.published.name, converted.family
    foreign = set(converted.architecture.parts) - {*family.classes[named].parts, "decoder"}
    return family.trunk if converted.published.missing and foreign else named


def _round_trip(converted: ConvertedModel, source: Source, folder: Path) -> Check:
    """Whether an export holds the tensors that the source holds, bit for bit, but for what was left behind."""
    write_export(converted, folder)
    back = Tensors([folder / WEIGHTS])
    left = converted.published.left_behind
    source_names, export_names = _all_names(source.tensors, converted, left), _all_names(back, converted)
    different = sorted(set(source_names) ^ set(export_names))
    for name in set(source_names) & set(export_names):
        if _content(source.tensors, source_names[name]) != _content(back, export_names[name]):
            different.append(name)
    value = f"{len(source_names)} tensors bit-equal" if not different else f"differ: {', '.join(different[:5])}"
    return comparison("exported again", value, not different)


def _content(tensors: Tensors, name: str) -> tuple[str, tuple[int, ...], bytes]:
    return tensors[name].dtype, tensors[name].shape, tensors.read(name).tobytes()


def _all_names(tensors: Tensors, converted: ConvertedModel, left: tuple[str, ...] = ()) -> Names:
    """The table's names of a file's tensors and the file's, biases that nothing depends on included."""
    untied = is_untied(converted.config)
    names = table_names(tensors, converted.family, untied=untied)
    names = {table_name: name for table_name, name in names.items() if table_name not in left}
    unused = unused_biases(tensors, converted.family, names)
    return names | {f"{table_name}, unused": name for table_name, name in unused.items()}


def _absent(converted: ConvertedModel) -> Iterator[Check]:
    """Outputs of the class that the port does not have: its file lacks tensors of theirs, or they were left behind."""
    published, family = converted.published, converted.family
    known = family.classes[published.name]
    present = {*converted.architecture.parts, *(("classifier",) if converted.architecture.classes else ())}
    for part in known.parts:
        lacks = [name for name in family.tensors_of(part, untied=True) if name in published.missing]
        if lacks:
            yield Check(OUTPUTS[part], f"the file lacks {', '.join(lacks)}", "not compared")
        elif part not in present:
            yield Check(OUTPUTS[part], "left behind", "not compared")
    if known.left:
        yield Check("its head", f"left behind: {', '.join(published.left_behind)}", "not compared")


def _compare_outputs(converted: ConvertedModel, source: Source, oracle: str, folder: Path) -> Iterator[Check]:
    """Every output of the port with the oracle's, and its tokenizer with transformers'."""
    needed = ("torch", "transformers") if converted.family.in_transformers else ("torch",)
    if why := not_installed(*needed):
        yield Check("outputs", why, "not compared")
    elif isinstance(converted.architecture.model, PublishedCNN):
        yield from _compare_cnn(converted, source, oracle, folder)
    else:
        yield from compare_encoder(converted, source, oracle, folder)
    if not isinstance(converted.architecture.model, PublishedCNN):
        yield compare_tokenizers(converted, source)


@partial(jax.jit, static_argnums=0)
def run_cnn(module: ImageClassifier, params: dict, pixels: jax.Array) -> tuple[jax.Array, jax.Array | None]:
    """The module's grid features and logits."""
    return module.apply({"params": params}, pixels)


def _compare_cnn(converted: ConvertedModel, source: Source, oracle: str, folder: Path) -> Iterator[Check]:
    from vlm_jax.weights.oracles import cnn_outputs

    height, width = converted.architecture.input.size
    pixels = np.random.default_rng(0).normal(size=(2, height, width, 3)).astype(np.float32)
    references, unlike = cnn_outputs(converted, source, oracle, folder, pixels)
    if unlike:
        yield comparison("tensors", f"transformers' {oracle}: {unlike}", False)
        return
    with jax.default_matmul_precision("highest"):
        outputs = jax.device_get(run_cnn(converted.module, converted.params, pixels))
    for name, output, reference in zip(("features", "logits"), outputs, references, strict=True):
        if output is not None and reference is not None:
            worst = score(output, reference)
            yield comparison(name, f"{worst:.1e}", worst <= CNN_BOUND and math.isfinite(worst))
        elif output is not None:
            yield Check(name, f"{oracle} does not compute it", "not compared")
