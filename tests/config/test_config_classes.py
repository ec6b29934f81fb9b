"""Every setting of every task has a rule and a text, and wrong settings are refused by name and value."""

import itertools
import math
import re
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Annotated, Union, get_args, get_origin

import pytest
from pydantic.fields import FieldInfo

from vlm_jax.config.architecture import AttentionPattern, Head
from vlm_jax.config.image_generation import ImageGeneration, TrainedImageTokenizer
from vlm_jax.config.tasks import TASKS
from vlm_jax.config.use import ImageScoring
from vlm_jax.errors import InputError
from vlm_jax.models.fusion import FUSIONS
from vlm_jax.settings.changes import checked, from_json, to_json, with_changes
from vlm_jax.settings.effects import Effect
from vlm_jax.settings.groups import Group, choices, flat, group_in, tree_of
from vlm_jax.settings.help import documentation
from vlm_jax.settings.presets import load_preset

ROOT = Path(__file__).parents[2]
PRESETS = sorted((ROOT / "configs").glob("[!_]*.py"))
# What a choice needs beside its kind.
REQUIRED = {
    "data": {"images": Path("images"), "train": (Path("rows.json"),), "dataset": "name"},
    "init": {"text": "weights", "model": "run"},
    "image_tokenizer": {"run": Path("run")},
    "model.image": {"folder": Path("features"), "patch_size": 1},  # which divides every image
}


def default(task):
    tokenizer = {"image_tokenizer": TrainedImageTokenizer(run=Path("run"))} if task == "image_generation" else {}
    return TASKS[task](**tokenizer)


def complete(config):
    """A preset with what it needs from the command line."""
    tree = tree_of(config)
    missing = {
        f"data.{name}": value
        for name, value in REQUIRED["data"].items()
        if name in type(config.data).model_fields and name not in tree["data"]
    }
    return with_changes(config, missing)


def groups_of(group: type[Group]) -> Iterator[type[Group]]:
    """A class and every group below it, whatever its choices are."""
    yield group
    for field in group.model_fields.values():
        for inner in [*choices(field).values(), *filter(None, [group_in(field)])]:
            yield from groups_of(inner)


def choices_of(config: Group, prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    for name, field in type(config).model_fields.items():
        if choices(field):
            yield prefix + name, field
        value = getattr(config, name, None)
        if isinstance(value, Group):
            yield from choices_of(value, f"{prefix}{name}.")


GROUPS = sorted({*itertools.chain(*map(groups_of, [*TASKS.values(), ImageScoring]))}, key=lambda group: str(group))


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_every_preset_is_valid_and_survives_json(path):
    config = complete(load_preset(path, TASKS))
    assert from_json(to_json(config), TASKS) == config
    assert config.name == path.stem
    hash(config)
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 50


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_every_choice_of_a_preset_can_be_another(path):
    config = complete(load_preset(path, TASKS))
    for name, field in choices_of(config):
        for kind, member in choices(field).items():
            required = REQUIRED.get(name, {}).items()
            needed = {f"{name}.{setting}": value for setting, value in required if setting in member.model_fields}
            if kind == "random_resized_crop" and config.data.stored_views:
                needed["data.stored_views"] = 2  # one view of each image would be the same part for ever
            changed = with_changes(config, {f"{name}.kind": kind, **needed})
            assert flat(tree_of(changed))[f"{name}.kind"] == kind
            if hasattr(changed, "architecture"):
                hash(changed.architecture)


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: f"{group.__module__.rpartition('.')[2]}.{group.__name__}")
def test_every_setting_has_a_text_and_at_most_one_effect(group):
    assert group.__dict__.get("__doc__"), group
    texts = documentation(group)
    for name, field in group.model_fields.items():
        effects = [entry for entry in field.metadata if isinstance(entry, Effect)]
        assert len(effects) <= 1, name
        if name not in ("kind", "task") and (choices(field) or not group_in(field)):
            assert texts[name].rstrip().endswith((".", ").")), name


def rules_of(hint, metadata=()):
    """(number type, its rules) of a type, one for each number in it."""
    if get_origin(hint) is Annotated:
        inner, *more = get_args(hint)
        yield from rules_of(inner, (*metadata, *more))
    elif hint in (int, float):
        yield hint, [rule for rule in metadata if not isinstance(rule, Effect)]
    else:
        shared = metadata if get_origin(hint) in (Union, UnionType) else ()
        for inner in get_args(hint):
            yield from rules_of(inner, shared) if not isinstance(inner, (str, int)) else ()


def test_every_number_has_a_rule():
    free = {"mean", "length_penalty"}  # any finite number
    for group in GROUPS:
        for name, field in group.model_fields.items():
            for kind, rules in rules_of(field.annotation, tuple(field.metadata)):
                assert rules or name in free, f"{group.__name__}.{name}: {kind}"


@pytest.mark.parametrize(
    ("task", "most"), [("vqa", 64), ("captioning", 71), ("image_generation", 75), ("image_tokenizer", 48)]
)
def test_a_task_shows_few_settings(task, most):
    assert len(flat(tree_of(default(task))).keys() - {"task"}) <= most


MODEL, GENERATION = ("vqa", "captioning", "image_generation"), ("image_generation",)
ALL = tuple(TASKS)
WRONG = [
    (ALL, "seed", 2**32),
    (ALL, "seed", -1),
    (ALL, "data.limit", 0),
    (ALL, "data.evaluation_limit", 0),
    (ALL, "data.threads", 0),
    (ALL, "image.size", (0, 64)),
    (ALL, "image.mean", (0.5, 0.5, math.nan)),
    (ALL, "image.std", (1.0, 0.0, 1.0)),
    (("vqa", "captioning", "image_tokenizer"), "image.shift", -1),
    (ALL, "optimizer.learning_rate", math.nan),
    (ALL, "optimizer.learning_rate", -1.0),
    (ALL, "optimizer.weight_decay", math.inf),
    (ALL, "optimizer.warmup_steps", -1),
    (ALL, "optimizer.betas", (0.9, 1.0)),
    (ALL, "optimizer.epsilon", 0.0),
    (ALL, "optimizer.clip_norm", 0.0),
    (ALL, "optimizer.ema", 1.0),
    (ALL, "optimizer.multipliers", (("a", -1.0),)),
    (ALL, "training.steps", 0),
    (ALL, "training.batch_images", 0),
    (ALL, "training.accumulation", 0),
    (ALL, "training.accumulation", 5),
    (ALL, "training.log_every", 0),
    (ALL, "training.evaluate_every", 0),
    (ALL, "training.evaluation_batch_images", 0),
    (MODEL, "training.texts_per_image", 0),
    (MODEL, "training.label_smoothing", 1.0),
    (ALL, "compute.devices", 0),
    (MODEL, "model.hidden_size", 0),
    (MODEL, "model.hidden_size", 130),
    (MODEL, "model.num_attention_heads", 0),
    (MODEL, "model.num_layers", 0),
    (MODEL, "model.intermediate_size", 0),
    (MODEL, "model.hidden_dropout_prob", 1.0),
    (MODEL, "model.attention_probs_dropout_prob", -0.1),
    (MODEL, "model.text.vocab_size", 0),
    (MODEL, "model.text.max_length", 2),
    (MODEL, "model.text.max_length", 600),
    (("vqa", "captioning"), "model.image.stem_width", 0),
    (("vqa", "captioning"), "model.image.stem_stride", 0),
    (("vqa", "captioning"), "model.image.widths", (0, 8, 8)),
    (("vqa", "captioning"), "model.image.blocks", (1,)),
    (("vqa", "captioning"), "model.image.blocks", (0, 0, -1)),
    (("captioning",), "decoding.min_length", -1),
    (("captioning",), "decoding.min_length", 16),
    (("captioning",), "decoding.no_repeat_ngram_size", 1),
    (("image_generation", "image_tokenizer"), "image_tokenizer.patch_size", 0),
    (("image_generation", "image_tokenizer"), "image_tokenizer.widths", (0, 8)),
    (("image_generation", "image_tokenizer"), "image_tokenizer.depths", (1,)),
    (("image_generation", "image_tokenizer"), "image_tokenizer.quantizer.levels", (2, 5)),
    (("image_generation", "image_tokenizer"), "image_tokenizer.quantizer.levels", (1001,)),
    (("image_generation", "image_tokenizer"), "image_tokenizer.quantizer.levels", (256, 257)),
    (("image_generation", "image_tokenizer"), "image.size", (64, 60)),
    (("image_tokenizer",), "image.size", (8, 8)),
    (("image_tokenizer",), "image_tokenizer.noise", -1.0),
    (GENERATION, "image.size", (64, 128)),
    (GENERATION, "image.size", (32, 32)),
    (GENERATION, "generation.cond_drop_prob", 1.0),
    (GENERATION, "generation.cond_drop_prob", 0.0),
    (GENERATION, "generation.token_frequency_power", 1.5),
    (GENERATION, "generation.guidance_scale", 0.5),
    (GENERATION, "generation.temperature", 0.0),
    (GENERATION, "generation.num_decoding_steps", 0),
    (GENERATION, "generation.choice_temperature", -0.5),
    (GENERATION, "generation.num_refinement_rounds", -1),
]


@pytest.mark.parametrize(("tasks", "name", "value"), WRONG, ids=lambda value: str(value)[:40])
def test_a_wrong_value_is_refused_by_name_and_value(tasks, name, value):
    for task in tasks:
        with pytest.raises(InputError) as refused:
            with_changes(default(task), {name: value})
        message = str(refused.value)
        numbers = re.findall(r"nan|inf|-?\d+(?:\.\d+)?", str(value))
        assert name.rpartition(".")[2] in message and any(number in message for number in numbers), message
        assert "\n" not in message


@pytest.mark.parametrize(
    ("task", "changes", "named"),
    [
        ("vqa", {"image.resize.kind": "center_crop", "image.resize.short_side": 63}, ("short_side", "63", "64")),
        ("vqa", {"data.kind": "table"}, ("data.train",)),
        ("vqa", {"data.kind": "shape_scenes", "data.objects": (3, 2)}, ("objects", "(3, 2)")),
        ("vqa", {"data.kind": "shape_scenes", "data.size": 0}, ("data.size", "0")),
        ("vqa", {"model.layout.kind": "custom", "model.layout.first_position": 497}, ("max_position_embeddings",)),
        ("vqa", {"model.layout.kind": "custom", "model.layout.layer_norm_eps": 0.0}, ("layer_norm_eps", "0.0")),
        ("vqa", {"model.fusion.head.kind": "lm"}, ("model.fusion.head.kind", "'lm'", "per_token")),
        ("vqa", {"model.fusion.attention_pattern": "prefix"}, ("attention_pattern", "'prefix'", "bidirectional")),
        ("vqa", {"model.fusion.kind": "cross", "model.fusion.attention_pattern": "bidirectional"}, ("concat",)),
        ("vqa", {"model.image.kind": "features"}, ("model.image.folder",)),
        ("vqa", {"model.image.kind": "resnet", "model.image.depth": 51}, ("model.image.depth", "51", "101")),
        ("vqa", {"init.kind": "parts"}, ("init", "text", "image")),
        ("vqa", {"init.kind": "model"}, ("init.model",)),
        ("captioning", {"model.fusion.kind": "late"}, ("model.fusion.kind", "'late'", "cross")),
        ("captioning", {"decoding.kind": "beam", "decoding.num_return_sequences": 6}, ("num_beams", "6", "5")),
        ("captioning", {"decoding.num_beams": 4}, ("decoding.num_beams", "decoding.kind=beam")),
        ("captioning", {"decoding.kind": "sample", "decoding.top_p": 0.0}, ("decoding.top_p", "0.0")),
        ("captioning", {"decoding.kind": "sample", "decoding.temperature": 0.0}, ("decoding.temperature", "0.0")),
        (
            "image_generation",
            {"generation.token_frequency_power": 0.5, "training.label_smoothing": 0.1},
            ("0.5", "0.1"),
        ),
        ("image_generation", {"model.image.kind": "small"}, ("model.image.kind",)),
        ("image_generation", {"generation.kind": "autoregressive", "generation.loss_weighting": "elbo"}, ("masked",)),
        ("image_generation", {"image.flip": True}, ("image.flip", "image_generation")),
        ("image_tokenizer", {"optimizer.kind": "muon"}, ("optimizer.kind", "'muon'", "adamw")),
        ("image_tokenizer", {"training.label_smoothing": 0.1}, ("training.label_smoothing", "image_tokenizer")),
        ("image_tokenizer", {"compute.dtype": "bfloat16"}, ("compute.dtype", "image_tokenizer")),
        (
            "image_tokenizer",
            {"image_tokenizer.quantizer.kind": "vq", "image_tokenizer.quantizer.codebook_size": 1},
            ("codebook_size", "1"),
        ),
    ],
)
def test_settings_that_do_not_go_together_are_refused(task, changes, named):
    with pytest.raises(InputError) as refused:
        with_changes(default(task), changes)
    assert all(word in str(refused.value) for word in named), refused.value


def test_image_generation_needs_an_image_tokenizer():
    with pytest.raises(InputError, match=r"image_tokenizer"):
        checked(ImageGeneration, {}, strict=False)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"num_candidates": 0}, "num_candidates"),
        ({"num_images": 0}, "num_images"),
        ({"reranker": Path("run")}, "num_candidates"),
        ({"features_sha256": "ab"}, "features_sha256"),
    ],
)
def test_options_of_scoring_keep_their_rules(options, named):
    with pytest.raises(InputError, match=named):
        checked(ImageScoring, options)


def test_every_fusion_pattern_and_head_has_its_place():
    made = []
    for task in ("vqa", "captioning", "image_generation"):
        config = default(task)
        for name, field in [*choices_of(config)]:
            if name in ("model.fusion", "generation"):
                made += [with_changes(config, {f"{name}.kind": kind}).architecture for kind in choices(field)]
    config = default("vqa")
    made += [
        with_changes(config, {"model.fusion.head.kind": kind}).architecture
        for kind in ("token_before_sep", "per_token")
    ]
    late = with_changes(config, {"model.fusion.kind": "late", "model.fusion.join": "concatenation"})
    causal = with_changes(default("captioning"), {"model.fusion.attention_pattern": "causal"})
    made += [late.architecture, causal.architecture]
    assert {model.fusion for model in made} == set(FUSIONS)
    assert {model.head for model in made} == set(get_args(Head))
    assert {model.attention_pattern for model in made} == set(get_args(AttentionPattern))


def test_only_presets_skip_the_checks():
    """`model_copy(update=...)` checks nothing, and `model_construct` is for what the command line has to give."""
    sources = [path for folder in ("vlm_jax", "experiments") for path in (ROOT / folder).rglob("*.py")]
    for path in [*sources, *(ROOT / "configs").rglob("*.py")]:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"model_copy\(\s*update", text), path
        if path.parent.name not in ("configs", "settings"):
            assert "model_construct" not in text, path
