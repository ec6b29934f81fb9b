"""Presets, data sets and runs: `vlm-jax list`. Each has one line."""

from pathlib import Path
from typing import Annotated, ClassVar

from vlm_jax.command_line import run_command
from vlm_jax.data.data_sets import summaries
from vlm_jax.invocation import command_name, folder_of_presets
from vlm_jax.run_folder import runs_in
from vlm_jax.settings.command_line import parse_options
from vlm_jax.settings.groups import POSITIONAL, Group
from vlm_jax.settings.presets import descriptions


class List(Group):
    """Show presets, studies, data sets and runs."""

    examples: ClassVar[tuple[str, ...]] = ("runs", "~/experiments/runs")
    folder: Annotated[Path, POSITIONAL] = Path("runs")
    """Folder in which runs are looked for."""


def main(argv: list[str]) -> int:
    options, presets = parse_options(argv, List, prog=command_name("list")), folder_of_presets()
    runs = {folder.path.name: folder.summary() for folder in runs_in(options.folder.expanduser())}
    sections = {
        f"Presets ({command_name('train')} NAME)": descriptions(presets),
        f"Studies ({command_name('ablate')} NAME)": descriptions(presets / "ablations"),
        "Data sets (--data.kind NAME)": summaries(),
        f"Runs in {options.folder}": runs or {"none": ""},
    }
    width = max(len(name) for rows in sections.values() for name in rows)
    for title, rows in sections.items():
        print(title)
        for name, text in rows.items():
            print(f"  {name:{width}s}  {text}".rstrip())
    return 0


if __name__ == "__main__":
    run_command(main)
