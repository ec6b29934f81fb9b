"""Bring published weights in, prove them, hand them back: `python -m experiments.port_weights verify SOURCE`.

A SOURCE is a folder with model.safetensors (or shards and their index) and config.json, a .safetensors file, a hub id
(owner/name@revision) or package:NAME/folder inside an installed Python package.
"""

from pathlib import Path
from typing import Annotated

from vlm_jax.command_line import run_command
from vlm_jax.invocation import command_name
from vlm_jax.settings.command_line import parse_subcommand
from vlm_jax.settings.groups import POSITIONAL, REPEATED, Group

DESCRIPTION = "Bring published weights in, prove them, hand them back."


class Names(Group):
    """What a source does not say itself, and names of tensors that are not as the published class has them."""

    source: Annotated[str, POSITIONAL]
    """Where the weights are: a folder, a .safetensors file, owner/name@revision, or package:NAME/folder."""
    architecture: str | None = None
    """The class, such as BertModel or resnet50, for weights that do not name it."""
    strip_prefix: str = ""
    """A beginning of names that is taken off, as `module.` or `base_model.model.`."""
    drop_tensors: Annotated[tuple[str, ...], REPEATED] = ()
    """A regular expression: tensors whose whole name matches it, without the prefix, are left out and recorded.
    Give it once for each message that names one."""


class Import(Names):
    """Port published weights into a folder: parameters (Orbax), tokenizer and port_report.md."""

    output: Path
    """Folder that is written; it must not be there yet."""


class Verify(Names):
    """Compare our model with the published one on the same input.

    Exit code 0 for PASS, 1 for FAIL, 3 for NOT COMPARED.
    """

    source: Annotated[str, POSITIONAL]
    """Where the weights are, or the folder of an import."""


class Export(Group):
    """Write a folder that the matching transformers class loads."""

    source: Annotated[str, POSITIONAL]
    """Folder of an import, or of a run, whose text side is taken."""
    output: Path
    """Folder that is written; it must not be there yet."""


class Convert(Group):
    """Take the tensors out of a pickled PyTorch checkpoint; nothing else in it is run. Needs torch."""

    source: Annotated[Path, POSITIONAL]
    """A .bin, .pt, .pth or .ckpt file."""
    output: Path
    """The .safetensors file that is written."""


class List(Group):
    """Say what can be ported."""


def main(argv: list[str]) -> int:
    commands = {"import": Import, "verify": Verify, "export": Export, "convert": Convert, "list": List}
    options = parse_subcommand(argv, commands, prog=command_name("port_weights"), description=DESCRIPTION)
    match options:
        case Import():
            return _import(options)
        case Verify():
            return _verify(options)
        case Export():
            return _export(options)
        case Convert():
            return _convert(options)
    return _list()


def _import(options):
    from vlm_jax.weights.import_folder import read, write_import

    converted = read(options.source, **_about(options))
    write_import(converted, options.output)
    for line in converted.class_lines:
        print(line)
    print(f"{converted.family.name}: {converted.parameter_count:,} parameters, sha256 {converted.origin.sha256}")
    for line in converted.changes.lines():
        print(line)
    print(f"saved in {options.output}: params, tokenizer, port_report.md")
    return 0


def _about(options):
    """What the options say of a source that it does not say itself."""
    names = {"strip_prefix": options.strip_prefix, "drop_tensors": "|".join(options.drop_tensors)}
    return names | {"class_name": options.architecture}


def _verify(options):
    from vlm_jax.weights.verify import verdict, verify

    print(
        f"{options.source}: largest differences, as a share of the largest entry (at least 1); the reference in float64"
    )
    checks = []
    for check in verify(options.source, **_about(options)):
        shown = "" if check.status == "note" else check.status
        print(f"{check.name:20s} {check.value:44s} {shown}".rstrip(), flush=True)
        checks.append(check)
    line, code = verdict(checks)
    print(line)
    return code


def _export(options):
    from vlm_jax.weights.export import export
    from vlm_jax.weights.import_folder import ABOUT, read_import

    folder = Path(options.source)
    if (folder / ABOUT).is_file():
        converted = read_import(folder)
    else:
        from vlm_jax.training.pretrained import text_side_of_run

        converted = text_side_of_run(folder)
    kind = export(converted, options.output)
    if kind:
        told = "".join(
            f", with {name}={value}," for name, value in converted.family.load_options(converted.architecture).items()
        )
        loads = f"transformers.{kind}.from_pretrained{told} loads it"
    else:
        loads = f"names are those of {converted.family.about}"
    print(f"saved in {options.output}: {loads}")
    return 0


def _convert(options):
    from vlm_jax.weights.pickles import convert_pickle

    shapes = convert_pickle(options.source, options.output)
    print(f"{len(shapes)} tensors saved in {options.output}; a config.json and tokenizer belong beside it")
    return 0


def _list():
    from vlm_jax.weights.families import FAMILIES

    for family in FAMILIES.values():
        print(f"{family.name:26s} {family.about}")
    return 0


if __name__ == "__main__":
    run_command(main)
