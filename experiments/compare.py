"""Do two trained checkpoints differ on the test split? `python -m experiments.compare runs/a runs/b`.

Item by item, with the image as the unit, since questions about one image are not independent. That says something
about these two checkpoints. Whether a way to train is better needs several seeds of each: experiments.ablate.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

from vlm_jax.command_line import run_command
from vlm_jax.invocation import command_name
from vlm_jax.settings.command_line import parse_options
from vlm_jax.settings.groups import POSITIONAL, Group

if TYPE_CHECKING:
    from vlm_jax.metrics.paired import Paired


class Compare(Group):
    """Compare two finished runs on the items of the test split that both predicted."""

    examples: ClassVar[tuple[str, ...]] = ("runs/concat runs/cross", "runs/quickstart other/quickstart")
    run_a: Annotated[Path, POSITIONAL]
    """Folder of a finished run."""
    run_b: Annotated[Path, POSITIONAL]
    """Folder of another one, on the same data."""


def main(argv: list[str]) -> int:
    arguments = parse_options(argv, Compare, prog=command_name("compare"))

    from vlm_jax.ablation.run_comparison import compare_runs
    from vlm_jax.run_folder import open_run

    comparison = compare_runs(open_run(arguments.run_a), open_run(arguments.run_b))
    if comparison.left_out:
        print(f"note: {comparison.left_out} items that only one of them predicted are left out")
    print(f"a: {arguments.run_a}\nb: {arguments.run_b}\n{comparison.unit}")
    print(_line("all", comparison.overall))
    for kind, result in comparison.by_kind.items():
        print(_line(kind, result, called="adjusted p"))
    print(
        "The interval is about these two checkpoints on images like these, not about the ways they were trained: "
        f"another seed of either may turn it round. For that, train several seeds of each ({command_name('ablate')})."
    )
    return 0


def _line(name: str, result: "Paired", *, called: str = "p") -> str:
    counts = (
        f"{result.questions:,} items on {result.images:,} images, b better on {result.wins:,}, a on {result.losses:,}"
    )
    text = f"{name}: a {result.a:.4f}, b {result.b:.4f}, b - a {result.difference:+.4f}"
    if result.low is None:
        why = "one image" if result.images == 1 else "no spread between images"
        return f"{text} ({why}: no interval); {counts}"
    differ = "these checkpoints differ" if result.p is not None and result.p <= 0.05 else "not distinguishable"
    return f"{text} [{result.low:+.4f}, {result.high:+.4f}], {called} {_p(result.p)}: {differ}; {counts}"


def _p(p: float | None) -> str:
    return "missing" if p is None else "< 0.0001" if p < 0.0001 else f"{p:.4f}"


if __name__ == "__main__":
    run_command(main)
