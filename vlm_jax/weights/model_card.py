"""The page of a folder that is shared: README.md, as the Hugging Face hub shows it, with the proof."""

import json
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from vlm_jax.models.pretrained import Part
from vlm_jax.types import Json
from vlm_jax.weights.checks import BOUND, Check, verdict
from vlm_jax.weights.converted_model import ConvertedModel
from vlm_jax.weights.settings_files import MODULES

CARD = "README.md"
PIPELINES: dict[Part, str] = {
    "words": "fill-mask",
    "sequence": "text-classification",
    "tokens": "token-classification",
    "spans": "question-answering",
    "answers": "visual-question-answering",
}
"""The hub's tasks (`pipeline_tag`), by the head that a text model has."""
PACKAGES = ("jax", "flax", "torch", "transformers")


def model_card(converted: ConvertedModel, name: str, *, trained: int, checks: Sequence[Check]) -> str:
    """The card of a model in the folder `name`, `trained` of whose parameters are not the source's."""
    architecture, family = converted.architecture, converted.family
    head = "".join(f"{key}: {json.dumps(value)}\n" for key, value in _metadata(converted).items())  # JSON is YAML
    state = (
        f"{trained:,} of {converted.parameter_count:,} parameters differ from it." if trained else "It is unchanged."
    )
    lines = [
        f"---\n{head}---\n",
        f"# {name}\n",
        f"A {family.class_of(architecture)} that vlm_jax (JAX and Flax) wrote. It began as the source below. {state}\n",
        "## Use\n",
        *_use(converted, name),
        "## Source\n",
        "| | |\n|---|---|",
        f"| weights | {_source_name(converted)} |",
        f"| revision | {converted.origin.revision or 'none: local files'} |",
        f"| sha256 | {converted.origin.sha256} |",
        *(f"| {key} | {value} |" for key, _, value in (line.partition(": ") for line in converted.class_lines)),
        *(f"| tensor names | {line} |" for line in converted.changes.lines()),
        "\nThe licence of the source holds for these weights.\n",
        "## Proof\n",
        *_proof(converted, name, checks),
    ]
    return "\n".join(lines)


def _metadata(converted: ConvertedModel) -> dict[str, Json]:
    """The block that the hub reads."""
    is_sentence_encoder = MODULES in converted.settings_files
    fields: dict[str, Json] = {"library_name": "vlm_jax"}
    if converted.family.in_transformers:
        fields["library_name"] = "sentence-transformers" if is_sentence_encoder else "transformers"
    fields |= {"pipeline_tag": _pipeline(converted), "tags": ["vlm_jax", converted.family.name]}
    if converted.origin.revision:  # only a model of the hub has a name that the hub takes
        fields["base_model"] = converted.origin.source.partition("@")[0]
    return fields


def _pipeline(converted: ConvertedModel) -> str:
    architecture = converted.architecture
    if architecture.is_image_encoder:
        return "image-classification" if architecture.classes else "image-feature-extraction"
    if task := converted.family.classes[converted.family.class_of(architecture)].pipeline:
        return task
    if MODULES in converted.settings_files:
        return "sentence-similarity"
    if architecture.is_decoder:
        return "text-generation"
    return next((task for part, task in PIPELINES.items() if part in architecture.parts), "feature-extraction")


def _source_name(converted: ConvertedModel) -> str:
    """The source; of a local path its last part, since a card is for other people."""
    origin = converted.origin
    is_path = not origin.revision and not origin.source.startswith("package:")
    return Path(origin.source).name if is_path else origin.source


def _use(converted: ConvertedModel, name: str) -> list[str]:
    """Python that loads the folder."""
    family, architecture = converted.family, converted.architecture
    lines = ["```python", "import vlm_jax", "", f'model = vlm_jax.from_pretrained("{name}")', "```\n"]
    if not family.in_transformers:
        return [*lines, f"The {family.loaded_by(architecture)}.\n"]
    kind = family.class_of(architecture)
    options = "".join(f", {key}={value}" for key, value in family.load_options(architecture).items())
    reader = "AutoTokenizer" if converted.tokenizer else "AutoImageProcessor" if architecture.input else ""
    lines += ["```python", f"from transformers import {', '.join(filter(None, (reader, kind)))}", ""]
    lines += [f'model = {kind}.from_pretrained("{name}"{options})']
    if reader:
        lines += [f'{"tokenizer" if converted.tokenizer else "processor"} = {reader}.from_pretrained("{name}")']
    lines += ["```\n"]
    if MODULES in converted.settings_files:
        lines += ["```python", "from sentence_transformers import SentenceTransformer", ""]
        lines += [f'vectors = SentenceTransformer("{name}").encode(["a cat on a mat"])', "```\n"]
    return lines


def _proof(converted: ConvertedModel, name: str, checks: Sequence[Check]) -> list[str]:
    """What was compared with what, how far it is off, and how to compare again."""
    again = f"To compare again: `vlm-jax port verify {name}`.\n"
    if not checks:
        return ["Nothing was compared when this folder was written.", again]
    kind = converted.family.class_of(converted.architecture)
    where = f"transformers' {kind}" if converted.family.in_transformers else f"{kind} in plain PyTorch functions"
    versions = ", ".join(f"{package} {version}" for package in PACKAGES if (version := _version(package)))
    return [
        f"These parameters in vlm_jax (float32) beside {where} (float64), which loaded this folder.",
        "The input of both is the same. A difference is a share of the output's largest entry (at least 1).",
        f"It passes up to {BOUND:g}.\n",
        "| output | difference | |\n|---|---|---|",
        *(f"| {check.name} | {check.value} | {'' if check.status == 'note' else check.status} |" for check in checks),
        f"\n**{verdict(checks)[0]}** ({versions})\n",
        again,
    ]


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
