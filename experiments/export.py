"""Hand weights back to transformers: `python -m experiments.export runs/easy_vqa --output exported`."""

from pathlib import Path
from typing import Annotated, ClassVar

from vlm_jax.command_line import run_command
from vlm_jax.invocation import command_name
from vlm_jax.settings.command_line import parse_options
from vlm_jax.settings.groups import POSITIONAL, Group


class Export(Group):
    """Write a folder that the matching transformers class loads, with a model card, as `save_pretrained` does."""

    examples: ClassVar[tuple[str, ...]] = ("imports/bert --output exported", "runs/easy_vqa --output exported")
    source: Annotated[Path, POSITIONAL]
    """Folder of an import, or of a run, whose text side is taken."""
    output: Path
    """Folder that is written; it must not be there yet."""
    prove: bool = False
    """Compare every output with transformers' for the model card; needs torch. `port verify FOLDER` does so later."""


def main(argv: list[str]) -> int:
    options = parse_options(argv, Export, prog=command_name("export"))

    from vlm_jax.training.pretrained import open_converted
    from vlm_jax.weights.publish import publish

    converted = open_converted(options.source)
    publish(converted, options.output, prove=options.prove)
    print(f"saved in {options.output}: {converted.family.loaded_by(converted.architecture)}")
    return 0


if __name__ == "__main__":
    run_command(main)
