"""Emoji from npm's packages: `python -m experiments.prepare_emoji node_modules --output emoji`."""

from pathlib import Path
from typing import Annotated, ClassVar

from vlm_jax.command_line import run_command
from vlm_jax.invocation import command_name
from vlm_jax.settings.command_line import parse_options
from vlm_jax.settings.groups import POSITIONAL, Group


class PrepareEmoji(Group):
    """Make the folder that the data set `emoji` reads: every named emoji of Noto's, and Fluent's of the same.

    First: npm install emojibase-data emoji-datasource-google @lobehub/fluent-emoji-3d
    """

    examples: ClassVar[tuple[str, ...]] = ("node_modules", "node_modules --output data/emoji")
    packages: Annotated[Path, POSITIONAL]
    """The `node_modules` that the three packages are in."""
    output: Path = Path("emoji")
    """The folder to make."""


def main(argv: list[str]) -> int:
    arguments = parse_options(argv, PrepareEmoji, prog=command_name("prepare_emoji"))
    from vlm_jax.data.user_files.emoji_packages import prepare_emoji

    counts = prepare_emoji(arguments.packages, arguments.output)
    print(f"{arguments.output}: {', '.join(f'{count:,} images in {designer}/' for designer, count in counts.items())}")
    return 0


if __name__ == "__main__":
    run_command(main)
