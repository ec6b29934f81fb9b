"""Write the outputs of an image encoder for later runs: `python -m experiments.extract_features CONFIG --output DIR`.

A run reads them with `--model.image.kind features --model.image.folder DIR`, and needs no image encoder.
"""

from pathlib import Path
from typing import ClassVar

from vlm_jax.command_line import run_command
from vlm_jax.errors import InputError
from vlm_jax.invocation import command_name
from vlm_jax.training.command_config import ConfigOptions, parse_command


class Options(ConfigOptions):
    """What this command takes besides settings."""

    examples: ClassVar[tuple[str, ...]] = ("quickstart --output features", "easy_vqa --data.limit 9 --output features")
    output: Path | None = None
    """Directory that is written; features that are there already are not computed again."""


def main(argv: list[str]) -> int:
    description = "Write the outputs of a config's image encoder for every image of its data set, in float16."
    config, options = parse_command(argv, Options(), command="extract_features", description=description)
    if options.output is None:
        raise InputError("--output is not given; give the directory that features are written to")

    from vlm_jax.compilation_cache import keep_programs
    from vlm_jax.training.feature_extraction import extract_features

    if config.compute.compilation_cache:
        keep_programs(config.data.directory)
    store = extract_features(config, options.output.expanduser())
    print(f"{len(store):,} images, features {' x '.join(map(str, store.shape))}, in {options.output}")
    print(f"read by {command_name('train')} CONFIG --model.image.kind features --model.image.folder {options.output}")
    return 0


if __name__ == "__main__":
    run_command(main)
