"""What a config's model is made of: `python -m experiments.inspect_model configs/quickstart.py --depth 3`.

Parameters, output shapes and FLOPs of every module; needs neither images nor a tokenizer, and runs nothing.
"""

from typing import TYPE_CHECKING, ClassVar

from vlm_jax.command_line import run_command
from vlm_jax.settings.rules import Count, Whole
from vlm_jax.training.command_config import ConfigOptions, parse_command

if TYPE_CHECKING:
    from vlm_jax.models.inspection import ModuleRow


class Options(ConfigOptions):
    """What this command takes besides settings."""

    examples: ClassVar[tuple[str, ...]] = ("quickstart", "reference_base --depth 1")
    depth: Whole = 2
    """Levels of modules to show; what is deeper counts in the module above it."""
    classes: Count | None = None
    """Answers to assume where the config leaves them to the data (1000 unless given)."""


def main(argv: list[str]) -> int:
    config, options = parse_command(
        argv,
        Options(),
        command="inspect_model",
        description="Parameters, output shapes and FLOPs of a model, module by module. The first argument is a config "
        "file; every setting in it is an option.",
    )

    from vlm_jax.tasks import task_class

    before, rows, after = task_class(config.task).inspect(config, options.classes)
    print("\n".join([*before, *_modules(rows, options.depth), *after]))
    return 0


def _modules(rows: "list[ModuleRow]", depth: int) -> list[str]:
    """The table, and what all of it is."""
    table = [("module", "parameters", "FLOPs", "output")] + [
        (row.path, f"{row.parameters:,}", f"{row.flops:,}", " ".join(map(_shape, row.outputs)) or "not called")
        for row in rows[1:]
        if row.path.count("/") < depth
    ]
    lengths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        "FLOPs: of one example, forward; products and convolutions only, a multiplication and an addition are two",
        "a module counts what is below it",
        "",
        *(
            f"{path:{lengths[0]}s}  {parameters:>{lengths[1]}s}  {flops:>{lengths[2]}s}  {output}"
            for path, parameters, flops, output in (table if depth else [])
        ),
        *([""] if depth else []),
        f"parameters           {rows[0].parameters:,}",
        f"FLOPs of an image   {rows[0].flops:,}",
    ]


def _shape(shape: tuple[int, ...]) -> str:
    return f"[{', '.join(map(str, shape))}]"


if __name__ == "__main__":
    run_command(main)
