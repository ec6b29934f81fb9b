"""Two trained checkpoints on the test split: scores item by item, with the image as the unit."""

from operator import attrgetter
from typing import NamedTuple

from vlm_jax.ablation.records import read_items
from vlm_jax.ablation.statistics import holm
from vlm_jax.config.run import Config
from vlm_jax.data.digests import from_row, what_differs
from vlm_jax.errors import InputError
from vlm_jax.files import sha256
from vlm_jax.metrics.paired import Paired, paired_difference
from vlm_jax.run_folder import IMAGE_TOKENIZER, RunFolder
from vlm_jax.settings.groups import flat, json_tree
from vlm_jax.tasks import task_class
from vlm_jax.tasks.base import Item

SAME_DATA = ("data.kind", "data.images", "data.test", "data.seed", "data.size", "data.objects")


class RunComparison(NamedTuple):
    """What two runs scored on the items that both predicted."""

    unit: str
    left_out: int
    """Items that only one of them predicted."""
    overall: Paired
    by_kind: dict[str, Paired]
    """Where there are several kinds of items; p is adjusted by Holm's method: among twenty, one would seem to differ
    by chance."""


def compare_runs(a: RunFolder, b: RunFolder) -> RunComparison:
    """The difference of b's scores from a's; `InputError` where they are not about the same."""
    folders, configs = (a, b), (a.config(), b.config())
    task = configs[0].task
    if task != configs[1].task:
        raise InputError(f"the runs have different tasks, {task} and {configs[1].task}")
    if differing := _other_data(folders, configs):
        raise InputError(f"the runs have other test images ({differing}); compare runs on the same data")
    if differing := _other_scale(folders, configs):
        raise InputError(f"the runs measure by other scales ({', '.join(differing)}), on which scores do not compare")
    items, others = (read_items(folder.path, task) for folder in folders)
    shared = [key for key in items if key in others and _target(items[key]) == _target(others[key])]
    if not shared:
        raise InputError("the runs predicted no item in common; compare runs on the same data")

    def paired(keys: list[str]) -> Paired:
        scores = ([side[key].score for key in keys] for side in (items, others))
        return paired_difference(*scores, [items[key].image_id for key in keys])

    kinds = sorted({items[key].kind for key in shared} - {""})
    by_kind = {kind: paired([key for key in shared if items[key].kind == kind]) for kind in kinds if len(kinds) > 1}
    adjusted = iter(holm([result.p for result in by_kind.values() if result.p is not None]))
    by_kind = {
        kind: result if result.p is None else result._replace(p=next(adjusted)) for kind, result in by_kind.items()
    }
    left_out = len(items) + len(others) - 2 * len(shared)
    return RunComparison(task_class(task).unit, left_out, paired(shared), by_kind)


def _other_data(folders: tuple[RunFolder, RunFolder], configs: tuple[Config, Config]) -> str | None:
    """What of the test splits is not the same: of their content where both runs kept its digest, else of settings."""
    digests = [folder.data().get("test") for folder in folders]
    if None not in digests:
        return what_differs(*map(from_row, digests))
    first, second = (flat(json_tree(config)) for config in configs)
    return ", ".join(name for name in SAME_DATA if first.get(name) != second.get(name))


def _other_scale(folders: tuple[RunFolder, RunFolder], configs: tuple[Config, Config]) -> list[str]:
    """The settings in which the runs differ and by which their scores are measured."""
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


def _target(item: Item) -> tuple[object, ...]:
    return item.image_id, item.text, item.references
