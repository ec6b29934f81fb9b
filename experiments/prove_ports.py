"""The table of proofs in docs/weights.md: `python -m experiments.prove_ports`.

Of every class that is ported whole, a tiny model with random weights is written by transformers, converted, compared
layer by layer with float64, exported again and compared bit for bit. Three classes train as well. CNNs that
transformers does not have are of their own size.
"""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from vlm_jax.command_line import run_command
from vlm_jax.invocation import command_name
from vlm_jax.settings.command_line import parse_options
from vlm_jax.settings.groups import Group
from vlm_jax.text_lines import first_line

if TYPE_CHECKING:
    from vlm_jax.weights.checks import Check
    from vlm_jax.weights.family import ConvertedArchitecture, Family

TRAINED = ("BertForMaskedLM", "BertForSequenceClassification", "ViTForImageClassification")
CONFIGS = {"BertLMHeadModel": {"is_decoder": True, "add_cross_attention": True}}
"""What the config.json of a class must say besides its sizes."""


HEADER = "| family | class | largest difference | tensors, bit-equal | training |\n|---|---|---|---|---|"


class Prove(Group):
    """Write the table of proofs: each class forward, exported again, and three of them in training."""

    examples: ClassVar[tuple[str, ...]] = ("", "--only Bert Roberta")
    only: tuple[str, ...] = ("",)
    """Classes whose names begin so; all by default."""


def main(argv: list[str]) -> int:
    from vlm_jax.weights.families import FAMILIES

    options = parse_options(argv, Prove, prog=command_name("prove_ports"))
    print(HEADER)
    failed, beginnings = 0, tuple(options.only)
    for family in FAMILIES.values():
        names = [name for name, known in family.classes.items() if not known.left and name.startswith(beginnings)]
        for name in names if not family.alias_of else ():
            row, passed = _row(family, name)
            print(f"| `{family.name}` | {name} | {row} |", flush=True)
            failed += not passed
    return 1 if failed else 0


def _row(family: "Family", class_name: str) -> tuple[str, bool]:
    """The cells of a class, and whether everything is equal; why there are none where its model is refused."""
    try:
        return _prove(family, class_name)
    except Exception as error:  # of our settings, of the class's or of a library: the other classes have their rows
        return f"{type(error).__name__}: {first_line(error)} | | FAIL", False


def _prove(family: "Family", class_name: str) -> tuple[str, bool]:
    from vlm_jax.training.port_proof import verify_tiny
    from vlm_jax.training.tiny_models import write_cnn, write_tiny
    from vlm_jax.weights.verify import verify

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "model"
        if family.in_transformers:
            write_tiny(class_name, CONFIGS.get(class_name, {}), folder)
        else:
            write_cnn(family, _architecture(class_name), folder)
        checks = list(verify(str(folder)))
        trained = list(verify_tiny(str(folder))) if class_name in TRAINED else []
    passed = all(check.status != "FAIL" for check in checks + trained) and not _left_out(checks)
    exported = next(check for check in checks if check.name == "exported again")
    training = ", ".join(check.value.split()[0] for check in trained) if family.in_transformers else "not compared"
    cells = (f"{_largest(checks)}{_left_out(checks)}", exported.value.removesuffix(" bit-equal"), training)
    return " | ".join(cells) + ("" if passed else " FAIL"), passed


def _architecture(class_name: str) -> "ConvertedArchitecture":
    """A CNN that transformers does not have, with a classifier."""
    from vlm_jax.config.encoders import EfficientNetLite0, MobileNetV2
    from vlm_jax.settings.changes import with_changes
    from vlm_jax.weights.cnn import TORCH_EPSILON
    from vlm_jax.weights.family import ConvertedArchitecture
    from vlm_jax.weights.resnet import TORCHVISION_RESNETS

    networks = TORCHVISION_RESNETS | {"mobilenet_v2": MobileNetV2(), "efficientnet_lite0": EfficientNetLite0()}
    frozen = with_changes(networks[class_name], {"norm": "frozen"})
    return ConvertedArchitecture(frozen, classes=10, batch_norm_eps=TORCH_EPSILON)


def _left_out(checks: list["Check"]) -> str:
    names = [check.name for check in checks if check.status == "not compared"]
    return f" (not compared: {', '.join(names)})" if names else ""


def _largest(checks: list["Check"]) -> str:
    """The largest difference of an output."""
    values = [check.value.split()[0] for check in checks if check.status in ("ok", "FAIL")]
    numbers = [float(value) for value in values if value == "nan" or "e-" in value or "e+" in value]
    return f"{np.max(numbers):.1e}" if numbers else "none"  # NaN stays


if __name__ == "__main__":
    run_command(main)
