"""The table of proofs in docs/weights.md: `python -m experiments.prove_ports`.

Of every class that is ported whole, a tiny model with random weights is written by transformers, converted, compared
layer by layer with float64, exported again and compared bit for bit. Three classes train as well.
"""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from vlm_jax.command_line import run_command
from vlm_jax.invocation import command_name
from vlm_jax.settings.command_line import parse_options
from vlm_jax.settings.groups import Group

if TYPE_CHECKING:
    from vlm_jax.weights.checks import Check

TRAINED = ("BertForMaskedLM", "BertForSequenceClassification", "ViTForImageClassification")
B0 = {"width_coefficient": 1.0, "depth_coefficient": 1.0, "hidden_dim": 1280}
CONFIGS = {
    "BertLMHeadModel": {"is_decoder": True, "add_cross_attention": True},
    "EfficientNetModel": B0,
    "EfficientNetForImageClassification": B0,
}
"""What the config.json of a class must say besides its sizes."""


HEADER = "| family | class | largest difference | tensors, bit-equal | training |\n|---|---|---|---|---|"


class Prove(Group):
    """Write the table of proofs: each class forward, exported again, and three of them in training."""

    only: tuple[str, ...] = ("",)
    """Classes whose names begin so; all by default."""


def main(argv: list[str]) -> int:
    from vlm_jax.weights.families import FAMILIES

    options = parse_options(argv, Prove, prog=command_name("prove_ports"))
    print(HEADER)
    failed, beginnings = 0, tuple(options.only)
    for family in FAMILIES.values():
        names = [name for name, known in family.classes.items() if not known.left and name.startswith(beginnings)]
        for name in names if family.in_transformers and not family.alias_of else ():
            row, passed = _prove(name)
            print(f"| `{family.name}` | {name} | {row} |", flush=True)
            failed += not passed
    return 1 if failed else 0


def _prove(class_name: str) -> tuple[str, bool]:
    """The cells of a class, and whether everything is equal."""
    from vlm_jax.training.port_proof import verify_tiny
    from vlm_jax.training.torch_training import write_tiny
    from vlm_jax.weights.verify import verify

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "tiny"
        write_tiny(class_name, CONFIGS.get(class_name, {}), folder)
        checks = list(verify(str(folder)))
        trained = list(verify_tiny(str(folder))) if class_name in TRAINED else []
    passed = all(check.status != "FAIL" for check in checks + trained) and not _left_out(checks)
    exported = next(check for check in checks if check.name == "exported again")
    training = ", ".join(check.value.split()[0] for check in trained)
    cells = [f"{_largest(checks):.1e}{_left_out(checks)}", exported.value.removesuffix(" bit-equal"), training]
    return " | ".join(cells) + ("" if passed else " FAIL"), passed


def _left_out(checks: list["Check"]) -> str:
    names = [check.name for check in checks if check.status == "not compared"]
    return f" (not compared: {', '.join(names)})" if names else ""


def _largest(checks: list["Check"]) -> float:
    """The largest difference of an output."""
    values = [check.value.split()[0] for check in checks if check.status in ("ok", "FAIL")]
    return max(float(value) for value in values if "e-" in value or "e+" in value)


if __name__ == "__main__":
    run_command(main)
