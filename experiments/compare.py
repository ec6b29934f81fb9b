"""Do two trained checkpoints differ on the test split? `python -m experiments.compare runs/a runs/b`.

Item by item, with the image as the unit, since questions about one image are not independent. That says something
about these two checkpoints. Whether a way to train is better needs several seeds of each: experiments.ablate.
"""

from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from vlm_jax.command_line import run_command
from vlm_jax.errors import InputError
from vlm_jax.invocation import command_name
from vlm_jax.settings.command_line import parse_options
from vlm_jax.settings.groups import POSITIONAL, Group, flat, json_tree

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vlm_jax.config.run import Config
    from vlm_jax.metrics.paired import Paired
    from vlm_jax.run_folder import RunFolder
    from vlm_jax.tasks.base import Item

SAME_DATA = ("data.kind", "data.images", "data.test", "data.seed", "data.size", "data.objects")


class Compare(Group):
    """Compare two finished runs on the items of the test split that both predicted."""

    run_a: Annotated[Path, POSITIONAL]
    """Folder of a finished run."""
    run_b: Annotated[Path, POSITIONAL]
    """Folder of another one, on the same data."""


def main(argv: list[str]) -> int:
    arguments = parse_options(argv, Compare, prog=command_name("compare"))

    from vlm_jax.ablation.items import read_items
    from vlm_jax.ablation.statistics import holm
    from vlm_jax.metrics.paired import paired_difference
    from vlm_jax.run_folder import open_run
    from vlm_jax.tasks import task_class

    folders = [open_run(path) for path in (arguments.run_a, arguments.run_b)]
    configs = [folder.config() for folder in folders]
    if configs[0].task != configs[1].task:
        raise InputError(f"the runs have different tasks, {configs[0].task} and {configs[1].task}")
    if differing := _other_data(folders, configs):
        raise InputError(f"the runs have other test images ({differing}); compare runs on the same data")
    if differing := _other_scale(folders, configs):
        raise InputError(f"the runs measure by other scales ({', '.join(differing)}), on which scores do not compare")
    a, b = (read_items(path, configs[0].task) for path in (arguments.run_a, arguments.run_b))
    shared = [key for key in a if key in b and _target(a[key]) == _target(b[key])]
    if not shared:
        raise InputError("the runs predicted no item in common; compare runs on the same data")
    left_out = len(a) + len(b) - 2 * len(shared)
    if left_out:
        print(f"note: {left_out} items that only one of them predicted are left out")
    images = [a[key].image_id for key in shared]
    print(f"a: {arguments.run_a}\nb: {arguments.run_b}\n{task_class(configs[0].task).unit}")
    kinds = sorted({a[key].kind for key in shared} - {""})
    results = []
    for kind in ["", *(kinds if len(kinds) > 1 else [])]:
        of_kind = [place for place, key in enumerate(shared) if not kind or a[key].kind == kind]
        scores = ([items[shared[place]].score for place in of_kind] for items in (a, b))
        results.append(paired_difference(*scores, [images[place] for place in of_kind]))
    print(_line("all", results[0], results[0].p))
    tested = [result.p for result in results[1:] if result.p is not None]
    adjusted = iter(holm(tested))  # of the kinds together: among twenty, one would seem to differ by chance
    for kind, result in zip(kinds, results[1:], strict=False):
        print(_line(kind, result, None if result.p is None else next(adjusted), adjusted=True))
    print(
        "The interval is about these two checkpoints on images like these, not about the ways they were trained: "
        f"another seed of either may turn it round. For that, train several seeds of each ({command_name('ablate')})."
    )
    return 0


def _other_data(folders: "Sequence[RunFolder]", configs: "Sequence[Config]") -> str | None:
    """What of the test splits is not the same: of their content where both runs kept its digest, else of settings."""
    from vlm_jax.data.digests import from_row, what_differs

    digests = [folder.data().get("test") for folder in folders]
    if None not in digests:
        return what_differs(*map(from_row, digests))
    first, second = (flat(json_tree(config)) for config in configs)
    return ", ".join(name for name in SAME_DATA if first.get(name) != second.get(name))


def _other_scale(folders: "Sequence[RunFolder]", configs: "Sequence[Config]") -> list[str]:
    """The settings in which the runs differ and by which their scores are measured."""
    from vlm_jax.files import sha256
    from vlm_jax.run_folder import IMAGE_TOKENIZER
    from vlm_jax.tasks import task_class

    scale = task_class(configs[0].task).scale_of(configs[0])
    differing = [name for name in scale if attrgetter(name)(configs[0]) != attrgetter(name)(configs[1])]
    tokenizers = [folder.file(IMAGE_TOKENIZER) for folder in folders]
    if (
        "image_tokenizer.run" in differing
        and all(file.is_file() for file in tokenizers)
        and len(set(map(sha256, tokenizers))) == 1
    ):
        differing.remove("image_tokenizer.run")  # it lies elsewhere and is the same
    return differing


def _target(item: "Item") -> tuple[Any, ...]:
    return item.image_id, item.text, item.references


def _line(name: str, result: "Paired", p: float | None, *, adjusted: bool = False) -> str:
    counts = (
        f"{result.questions:,} items on {result.images:,} images, b better on {result.wins:,}, a on {result.losses:,}"
    )
    text = f"{name}: a {result.a:.4f}, b {result.b:.4f}, b - a {result.difference:+.4f}"
    if result.low is None:
        why = "one image" if result.images == 1 else "no spread between images"
        return f"{text} ({why}: no interval); {counts}"
    differ = "these checkpoints differ" if p is not None and p <= 0.05 else "not distinguishable"
    called = "adjusted p" if adjusted else "p"
    return f"{text} [{result.low:+.4f}, {result.high:+.4f}], {called} {_p(p)}: {differ}; {counts}"


def _p(p: Any) -> str:
    return "missing" if p is None else "< 0.0001" if p < 0.0001 else f"{p:.4f}"


if __name__ == "__main__":
    run_command(main)
