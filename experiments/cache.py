"""Show or remove what runs keep below the data directory, with sizes: `python -m experiments.cache list`."""

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from vlm_jax.command_line import run_command
from vlm_jax.invocation import command_name
from vlm_jax.settings.command_line import parse_subcommand
from vlm_jax.settings.groups import Group

if TYPE_CHECKING:
    from vlm_jax.cache_contents import Content


class Where(Group):
    """Which of what lies below a directory."""

    directory: Path = Path("~/.cache/vlm_jax")
    """The `data.directory` of runs."""
    what: Literal["images", "features", "image_tokens", "tables", "packages", "compiled", "prepared", "all"] | None = (
        None
    )
    """Of one kind alone. By default what running commands go on without; `all` is all, also prepared data sets."""


class List(Where):
    """Show what is there, with sizes."""

    examples: ClassVar[tuple[str, ...]] = ("", "--what all")


class Clear(Where):
    """Show what would be removed, and with --yes remove it; the next run that needs it makes it again."""

    examples: ClassVar[tuple[str, ...]] = ("", "--what images --yes")
    yes: bool = False
    """Remove it."""


def main(argv: list[str]) -> int:
    commands, description = {"list": List, "clear": Clear}, "Show or remove what runs keep below data.directory."
    options = parse_subcommand(argv, commands, prog=command_name("cache"), description=description)

    from vlm_jax.cache_contents import KINDS, MADE_AGAIN, contents

    kinds = {None: MADE_AGAIN, "all": KINDS}.get(options.what, (options.what,))
    items = [item for item in contents(options.directory.expanduser()) if item.kind in kinds]
    print("\n".join(_lines(items, options.directory)))
    if isinstance(options, Clear) and items:
        return _clear(items, options)
    return 0


def _lines(items: "list[Content]", directory: Path) -> list[str]:
    from vlm_jax.data.caches import shown_size

    if not items:
        return [f"nothing is cached in {directory}"]
    rows = [(item.kind, shown_size(item.size), item.description, str(item.path)) for item in items]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    table = [
        f"{kind:{widths[0]}s}  {size:>{widths[1]}s}  {description:{widths[2]}s}  {path}"
        for kind, size, description, path in rows
    ]
    return [*table, f"together {shown_size(sum(item.size for item in items))}"]


def _clear(items: "list[Content]", options: Clear) -> int:
    from vlm_jax.cache_contents import remove

    if not options.yes:
        print("nothing was removed; to remove these, add --yes")
        return 0
    code = 0
    for item in items:
        try:
            remove(item)
        except OSError as error:
            code = 1
            print(f"{item.path} stays: {error.strerror}")
    print("removed" if not code else "removed the others")
    return code


if __name__ == "__main__":
    run_command(main)
