"""What a config costs, by formula, and configs made to cost the same."""

import functools
import re
from collections.abc import Iterator
from typing import NamedTuple

from vlm_jax.config.initialization import ModelInit
from vlm_jax.config.run import Config
from vlm_jax.config.trunk import TextConfig
from vlm_jax.errors import InputError
from vlm_jax.settings.changes import with_changes

TOLERANCE = 0.05
MULTIPLE = 16  # of a feed-forward width
BACKWARD = 2  # a backward pass has two products for each of the forward pass
WIDEST = 16  # times the trunk's width: beyond it, matching is no longer about the same kind of model


class Cost(NamedTuple):
    """Of a model and its optimizer step; None where nobody can tell any more."""

    parameters: int | None
    step_flops: int | None
    """Products and convolutions of one optimizer step, forward and backward, without what the optimizer itself takes
    (Muon turns matrices by products). Frozen modules count forward alone, as is right where nothing below them is
    trained."""


@functools.lru_cache(maxsize=256)
def cost(config: Config) -> Cost:
    """Parameters and FLOPs of a checked config, from shapes alone; prepares its data to count the answers."""
    from vlm_jax.tasks import task_class

    task = task_class(config.task)
    rows = task.inspect(config, task.num_classes(config)).rows
    below: dict[str, int] = {}
    for row in rows[1:]:
        parent = row.path.rpartition("/")[0]
        below[parent] = below.get(parent, 0) + row.flops
    flops = 0
    for row in rows:
        own = row.flops - below.get(row.path, 0)
        # Which code is nearest is chosen, and has no gradient.
        held = row.path == "quantizer" or any(
            re.search(pattern, f"{row.path}/kernel") for pattern in config.optimizer.frozen
        )
        flops += own * (1 if held else 1 + BACKWARD)
    return Cost(rows[0].parameters, flops * config.training.batch_images)


def matched(config: Config, target: Config, what: str) -> tuple[Config, str]:
    """The config with depth and feed-forward width changed until `what` agrees with the target's within 5 %.

    `what` is `flops` (of an optimizer step) or `parameters`. Its own depth is tried first, then those nearest to it; of
    the widths, multiples of 16, the one that agrees best. Returns the config and what was changed, in words. Raises
    `InputError` where nothing agrees, or where the layers are given by pretrained weights.
    """
    goal = _measure(target, what)
    if abs(_measure(config, what) / goal - 1) <= TOLERANCE:
        return config, ""
    if not isinstance(config, TextConfig):
        raise InputError(f"match is {what!r}, and an image tokenizer has no trunk to make deeper or wider; match steps")
    init, model = config.init, config.model
    if isinstance(init, ModelInit) or (getattr(init, "text", None) and init.trunk):
        raise InputError(f"match is {what!r}, and pretrained layers leave no choice of depth and width; match steps")
    changed = next(_candidates(config, what, goal), None)
    if changed is None:
        raise InputError(
            f"no depth and feed-forward width bring it within {TOLERANCE:.0%} of the first variant's {goal:,} {what} "
            f"(it has {_measure(config, what):,}); change model.hidden_size of one of them, or match steps"
        )
    pairs = (
        ("num_layers", model.num_layers, changed.model.num_layers),
        ("intermediate_size", model.intermediate_size, changed.model.intermediate_size),
    )
    return changed, ", ".join(f"{name} {old} -> {new}" for name, old, new in pairs if old != new)


def _measure(config: Config, what: str) -> int:
    total = cost(config)
    return total.step_flops if what == "flops" else total.parameters


def _candidates(config: TextConfig, what: str, goal: int) -> Iterator[TextConfig]:
    """Configs within the tolerance, the nearest depth first.

    Parameters and FLOPs are linear in the feed-forward width and, from the first layer on, in depth: four models say
    all of it, and what they foretell is then counted.
    """
    depth, narrow, wide = config.model.num_layers, MULTIPLE, 2 * MULTIPLE
    one_layer, two_layers = (
        [_measure(_shaped(config, layers, width), what) for width in (narrow, wide)] for layers in (1, 2)
    )
    for layers in sorted(range(1, 4 * depth + 1), key=lambda layers: abs(layers - depth)):
        low, high = (
            first + (layers - 1) * (second - first) for first, second in zip(one_layer, two_layers, strict=True)
        )
        units = round(1 + (goal - low) / max(high - low, 1))
        width = MULTIPLE * max(1, min(units, WIDEST * config.model.hidden_size // MULTIPLE))
        foretold = low + (high - low) * (width / MULTIPLE - 1)
        if abs(foretold / goal - 1) > TOLERANCE:
            continue
        shaped = _shaped(config, layers, width)
        if abs(_measure(shaped, what) / goal - 1) <= TOLERANCE:
            yield shaped


def _shaped(config: TextConfig, layers: int, intermediate_size: int) -> TextConfig:
    return with_changes(config, {"model.num_layers": layers, "model.intermediate_size": intermediate_size})
