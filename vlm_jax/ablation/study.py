"""What a study compares: a question, variants of a config, seeds, and what must be equal to be fair."""

import functools
import itertools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from vlm_jax.ablation.costs import cost, matched
from vlm_jax.config.initialization import ModelInit, TextInit, WordsInit
from vlm_jax.config.run import Config
from vlm_jax.config.tasks import TASKS
from vlm_jax.config.trunk import TextConfig
from vlm_jax.data.settings import DataSet
from vlm_jax.errors import InputError, one_of
from vlm_jax.files import text_sha256
from vlm_jax.invocation import folder_of_presets
from vlm_jax.settings.changes import to_json, with_changes
from vlm_jax.settings.groups import Group, flat, tree_of
from vlm_jax.settings.presets import call_file, load_preset, preset_file

MATCHES = ("steps", "flops", "parameters")
BASE = "base"
PARTS = ("baseline", "unseen_prompts")  # what scores of a part or of a control begin with
LONGEST_NAME = 80


@dataclass(frozen=True)
class Variant:
    """The base config with some settings changed."""

    overrides: tuple[tuple[str, object], ...] = ()
    """(dotted setting, value) pairs, such as `("model.fusion.kind", "cross")`."""
    name: str = ""
    """What the report calls it; without it, its overrides."""

    @property
    def label(self) -> str:
        """Its name, or its overrides: `fusion=cross, num_layers=4`."""
        changes = ", ".join(f"{short_name(setting)}={_spelled(value)}" for setting, value in self.overrides)
        return self.name or changes or BASE


def short_name(setting: str) -> str:
    """The last part of a dotted name; of a choice's kind, the choice: `fusion`, not `kind`."""
    return setting.removesuffix(".kind").rpartition(".")[2]


def _spelled(value: object) -> str:
    if isinstance(value, Group):
        return str(getattr(value, "kind", value))
    return "x".join(map(_spelled, value)) if isinstance(value, (tuple, list)) else str(value)


def variant(overrides: Mapping[str, object], name: str = "") -> tuple[Variant]:
    """One variant, for `chain`."""
    return (Variant(tuple(overrides.items()), name),)


def grid(values: Mapping[str, Sequence[object]]) -> tuple[Variant, ...]:
    """Every combination of the values; the first of each together are what the others are compared with."""
    combinations = itertools.product(*values.values())
    return tuple(Variant(tuple(zip(values, combination, strict=True))) for combination in combinations)


def vary(values: Mapping[str, Sequence[object]]) -> tuple[Variant, ...]:
    """The base itself, then one setting changed at a time."""
    changes = (Variant(((setting, value),)) for setting, choices in values.items() for value in choices)
    return (Variant(), *changes)


def chain(*lists: Iterable[Variant]) -> tuple[Variant, ...]:
    """One list after the other, each variant once."""
    unique: dict[str, Variant] = {}
    for entry in itertools.chain(*lists):
        unique.setdefault(repr(entry.overrides), entry)
    return tuple(unique.values())


@dataclass(frozen=True)
class Comparison:
    """Variants of one config, in one table; the first variant is what the others are compared with."""

    title: str
    base: str
    """Config file, relative to the study's."""
    variants: tuple[Variant, ...]
    common: Mapping[str, object] = field(default_factory=dict)
    """Overrides of every variant, such as the number of steps."""
    match: str = "steps"
    """What all variants have alike. Steps (and batches) always; `flops` of an optimizer step and `parameters` change
    depth and feed-forward width of the others until they agree with the first variant's within 5 %."""
    metrics: tuple[str, ...] = ()
    """Scores of `result.json` to compare, by default the one that the best checkpoint is chosen by."""


@dataclass(frozen=True)
class Study:
    """What `configs/ablations/NAME.py` returns from `get_study()`."""

    question: str
    comparisons: tuple[Comparison, ...]
    seeds: tuple[int, ...] = (0, 1, 2)
    """Every variant has a run with each: the seed is the unit of the statistics."""
    finding: str = ""
    """What came of it, in a paragraph, once it has been run."""


class Planned(NamedTuple):
    """A variant of a comparison, resolved."""

    label: str
    overrides: tuple[tuple[str, object], ...]
    config: Config
    """Checked, with the study's first seed; matching may have changed its depth and width."""
    chosen: str
    """What matching changed, such as `layers 4 -> 3, intermediate_size 192 -> 240`; empty where nothing."""


class Table(NamedTuple):
    """A comparison, resolved."""

    title: str
    base: str
    match: str
    metrics: tuple[str, ...]
    variants: tuple[Planned, ...]
    common: tuple[tuple[str, object], ...] = ()


class Run(NamedTuple):
    """A variant with a seed. Comparisons that have the same one share it; of those that train alike one is trained."""

    name: str
    """Of its folder: overrides, seed and the hash of the resolved config."""
    config: Config


def study_file(path: Path) -> Path:
    """The file of a study, which a path or the name of one of the project's studies means."""
    return preset_file(path, folder_of_presets() / "ablations", what="study")


def load_study(path: Path) -> Study:
    """The study that a file such as `configs/ablations/tiny.py` gives; `InputError` names what is wrong with it."""
    if path.suffix != ".py":
        raise InputError(f"{path} is no Python file; a study looks like configs/ablations/tiny.py")
    study = call_file(path, "get_study", (Study,), example="configs/ablations/tiny.py")
    _check_study(study, path)
    return study


def _check_study(study: Study, path: Path) -> None:
    for name, value, kind in (("comparisons", study.comparisons, Comparison), ("seeds", study.seeds, int)):
        if not isinstance(value, tuple) or not value or not all(isinstance(entry, kind) for entry in value):
            raise InputError(f"{path}: {name} must be a tuple of {kind.__name__}, not {value!r}")
    check_seeds(study.seeds, path)
    titles = [comparison.title for comparison in study.comparisons]
    if len(set(titles)) < len(titles):
        raise InputError(f"{path} has two comparisons of one title; give each its own")
    for comparison in study.comparisons:
        if not isinstance(comparison.metrics, tuple):
            raise InputError(f"{path}, {comparison.title}: metrics must be a tuple, not {comparison.metrics!r}")
        if len(comparison.variants) < 2:
            raise InputError(f"{path}, {comparison.title}: give two variants or more to compare")
        if comparison.match not in MATCHES:
            raise InputError(f"{path}, {comparison.title}: match is {comparison.match!r}; {one_of(MATCHES)}")


def check_seeds(seeds: Sequence[int], path: Path) -> None:
    """Raises `InputError` where there is no seed, or one twice."""
    if not seeds or len(set(seeds)) < len(seeds) or not all(0 <= seed < 2**32 for seed in seeds):
        raise InputError(f"{path}: the seeds are {tuple(seeds)}; give at least one, none twice, from 0 to {2**32 - 1}")


def resolve(study: Study, path: Path, finished: Callable[[Config], bool] = lambda _: False) -> tuple[Table, ...]:
    """Every comparison with checked and traced configs; nothing that cannot work gets past this.

    What a variant starts from need not be there any more when the runs of all its seeds are `finished`.
    """
    return tuple(_table(comparison, path, study.seeds, finished) for comparison in study.comparisons)


def _table(comparison: Comparison, path: Path, seeds: Sequence[int], finished: Callable[[Config], bool]) -> Table:
    file = path.parent / comparison.base
    base = load_preset(file, TASKS)
    planned: list[Planned] = []
    for entry in comparison.variants:
        try:
            config = with_changes(base, {**comparison.common, **dict(entry.overrides), "seed": seeds[0]})
            chosen = ""
            if planned and comparison.match != "steps":
                config, chosen = matched(config, planned[0].config, comparison.match)
            cost(config)
            _check_metrics(comparison.metrics, config)
            if not all(finished(with_changes(config, {"seed": seed})) for seed in seeds):
                _check_sources(config)
        except (ValueError, TypeError) as error:  # InputError among them, and what tracing says of shapes
            raise InputError(f"{path}, {comparison.title}, {entry.label}: {error}") from None
        planned.append(Planned(_label(entry, comparison, config), entry.overrides, config, chosen))
    for place, resolved in enumerate(planned):
        for other in planned[:place]:
            if resolved.label == other.label:
                raise InputError(f"{path}, {comparison.title}: two variants are called {resolved.label!r}; name them")
            if resolved.config == other.config:
                labels = f"{other.label!r} and {resolved.label!r}"
                raise InputError(f"{path}, {comparison.title}: {labels} are the same config")
    common = tuple(comparison.common.items())
    return Table(comparison.title, comparison.base, comparison.match, comparison.metrics, tuple(planned), common)


def _check_metrics(metrics: tuple[str, ...], config: Config) -> None:
    """Raises `InputError` where the task has no score of a name, or the data no questions of a kind.

    What baselines there are is known by runs.
    """
    from vlm_jax.tasks import task_class

    task = task_class(config.task)
    for metric in metrics:
        first, _, kind = metric.partition("/")
        if first not in (*task.scores, *PARTS):
            raise InputError(f"the task {config.task!r} has no score {metric!r}; {one_of(task.scores)}")
        if first in task.by_kind and kind and kind not in (kinds := _kinds(config.data)):
            raise InputError(f"no test question is of the kind of {metric!r}; {one_of(sorted(kinds))}")


@functools.lru_cache
def _kinds(data: DataSet) -> tuple[str, ...]:
    """The kinds of the test questions."""
    from vlm_jax.data.sources import open_split

    return tuple(sorted({question.kind for example in open_split(data, "test") for question in example.texts}))


def _check_sources(config: Config) -> None:
    """Raises `InputError` where data, a run or weights that the config needs are not there or do not fit."""
    from vlm_jax.data.sources import open_split
    from vlm_jax.data.tokenizer import Tokenizer
    from vlm_jax.tasks import task_class
    from vlm_jax.training.initialization import start
    from vlm_jax.training.pretrained import check_tokenizer, open_pretrained, tokenizer_source

    open_split(config.data, "train")
    if not isinstance(config, TextConfig):
        return
    if isinstance(config.init, ModelInit):
        open_pretrained(config.init.model)  # its answers have to fit as well, and are counted by each run
    elif isinstance(config.init, (TextInit, WordsInit)):
        start(config, task_class(config.task).parameter_shapes(config), ())
    if (tokenizer := tokenizer_source(config)) is not None:
        check_tokenizer(Tokenizer.load(tokenizer), config)
    task_class(config.task).check_sources(config)


def _label(entry: Variant, comparison: Comparison, config: Config) -> str:
    """What a variant is called; the base says its own value where only one setting is varied."""
    varied = {setting for other in comparison.variants for setting, _ in other.overrides}
    if entry.label != BASE or len(varied) != 1:
        return entry.label
    (setting,) = varied
    values = flat(tree_of(config))
    if setting not in values:  # a mistake, which the variant that changes it is told of
        return entry.label
    return Variant(((setting, values[setting]),)).label


def seeded(variant: Planned, seed: int) -> Run:
    """The variant's run with a seed, by the name that it has where no other comparison had it first."""
    config = with_changes(variant.config, {"seed": seed})
    digest = text_sha256(to_json(config))[:8]
    words = re.sub(r"[^A-Za-z0-9=.+,_-]+", "-", variant.label.replace(", ", ",")).strip("-.")[:LONGEST_NAME]
    return Run(f"{words or BASE},seed={seed}-{digest}", config)


def runs(tables: Iterable[Table], seeds: Iterable[int]) -> list[Run]:
    """Every run once, all variants with the first seed before the next seed begins."""
    unique: dict[Config, Run] = {}
    for seed in seeds:
        for table in tables:
            for variant in table.variants:
                run = seeded(variant, seed)
                unique.setdefault(run.config, run)
    return list(unique.values())


def named(runs: Sequence[Run], parts: Sequence[str]) -> list[Run]:
    """The runs whose names have one of these parts in them, all where there are none; `InputError` where none has."""
    chosen = [run for run in runs if not parts or any(part in run.name for part in parts)]
    if not chosen:
        names = ", ".join(run.name for run in runs[:8])
        raise InputError(f"no run has {' or '.join(map(repr, parts))} in its name; the first are: {names}")
    return chosen
