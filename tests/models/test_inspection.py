"""What the inspection counts is what XLA counts, and what a fresh model holds."""

import functools
import math

import jax
import pytest

from tests.models.architectures import PAIRINGS, encoder
from vlm_jax.config.architecture import Architecture
from vlm_jax.config.encoders import Features
from vlm_jax.config.quantizers import VQ, ImageTokenizerSettings
from vlm_jax.models.inspection import inspect, inspect_image_tokenizer
from vlm_jax.models.vlm import VisualLanguageModel
from vlm_jax.settings.changes import with_changes

SIZE, QUESTIONS, CLASSES, LENGTH = (48, 64), 3, 50, 10
COMBINATIONS = [
    (fusion, attention_pattern, head)
    for fusion, (patterns, heads) in PAIRINGS["vqa"].items()
    for attention_pattern in patterns
    for head in heads
]

FIRST = [(fusion, patterns[0], heads[0]) for fusion, (patterns, heads) in PAIRINGS["vqa"].items()]


def settings_of(
    fusion="concat",
    attention_pattern="image_to_text",
    head="cls",
    *,
    cnn="small",
    hidden_size=256,
    projection="linear",
    **more,
):
    return Architecture(
        hidden_size=hidden_size, num_attention_heads=4, num_layers=2, intermediate_size=4 * hidden_size,
        fusion=fusion, attention_pattern=attention_pattern, head=head,
        image=encoder(cnn, patch_size=8, projection=projection),
        vocab_size=30, text_feature_size=hidden_size, **more,
    )  # fmt: skip


@functools.cache
def inspected(settings, **changed):
    sizes = {"image_size": SIZE, "questions": QUESTIONS, "classes": CLASSES, "text_length": LENGTH}
    return inspect(settings, **sizes | changed)


@functools.cache
def abstract(settings):
    """The model's inputs and parameters, as shapes."""
    model, ids = VisualLanguageModel(settings, CLASSES), (1, QUESTIONS, LENGTH)
    inputs = [
        jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in (((1, *SIZE, 3), "float32"), (ids, "int32"), (ids, bool))
    ]
    return model, inputs, jax.eval_shape(lambda *x: model.init(jax.random.key(0), *x), *inputs)


@pytest.mark.parametrize(
    ("fusion", "attention_pattern", "head", "cnn"),
    [
        *(
            pytest.param(*combination, "patches", marks=() if combination in FIRST else pytest.mark.slow)
            for combination in COMBINATIONS
        ),
        (*COMBINATIONS[0], "small"),
        (*COMBINATIONS[0], "vit"),
        ("cross", "prefix", "lm", "patches"),
    ],
)
def test_flops_are_those_that_xla_counts(fusion, attention_pattern, head, cnn):
    settings = with_changes(settings_of(fusion, attention_pattern, head, cnn=cnn), {"vocab_size": 2_000})
    model, inputs, variables = abstract(settings)
    program = jax.jit(lambda *x: model.apply(*x, method="task_logits")).lower(variables, *inputs).compile()
    # XLA counts norms, softmax and activations as well. It leaves out what it can tell nobody reads: with a head that
    # reads a word other than the first, the image side of the last layer.
    most = 1.0 if head != "token_before_sep" or attention_pattern == "bidirectional" else 1.35
    length = LENGTH + (head == "lm")  # the last token of a caption is no input
    assert 0.9 < inspected(settings, text_length=length)[0].flops / program.cost_analysis()["flops"] < most


@pytest.mark.parametrize(("fusion", "attention_pattern", "head"), COMBINATIONS)
def test_parameters_are_those_of_a_fresh_model(fusion, attention_pattern, head):
    settings = settings_of(fusion, attention_pattern, head, cnn="patches")
    params = abstract(settings)[2]["params"]
    rows = {row.path: row for row in inspected(settings)}

    def check(path, tree):
        assert rows[path].parameters == sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree)), path
        for name, below in tree.items():
            if isinstance(below, dict):
                check(f"{path}/{name}".lstrip("/"), below)

    check("", params)
    assert len(rows) == len(inspected(settings))  # a path once


def test_two_matrices_of_a_projection_are_both_counted():
    settings = settings_of(cnn="patches", hidden_size=8, projection="mlp")
    rows = {row.path: row for row in inspected(settings, image_size=(24, 32))}
    assert rows["embed/image_out"].flops == 2 * 12 * 8 * 8
    assert rows["embed/image_out"].parameters == 8 * 8 + 8


def test_products_by_hand():
    """One layer, width D = 8, 12 cells, 3 questions of 10 tokens, of which the last layer asks with [CLS] alone."""
    settings = with_changes(
        settings_of("late", "dual_encoder", "product", cnn="patches", hidden_size=8), {"num_layers": 1}
    )
    rows = {row.path: row for row in inspected(settings, image_size=(24, 32))}
    assert rows["embed/image_fc"].flops == 2 * 12 * (8 * 8 * 3) * 8
    assert rows["embed/text_fc"].flops == 2 * 3 * 10 * 8 * 8
    assert rows["trunk/image_layer_0/attention/query"].flops == 2 * 12 * 8 * 8
    projections = 4 * (2 * 12 * 8 * 8)
    assert rows["trunk/image_layer_0/attention"].flops == projections + 2 * (2 * 12 * 12 * 8)
    assert rows["trunk/image_layer_0"].flops == projections + 2 * (2 * 12 * 12 * 8) + 2 * (2 * 12 * 8 * 32)
    assert rows["trunk/text_layer_0/attention/query"].flops == 3 * (2 * 1 * 8 * 8)
    assert rows["trunk/text_layer_0/attention/key"].flops == 3 * (2 * 10 * 8 * 8)
    assert rows["trunk/text_layer_0/attention"].flops == 3 * (2 * 1 * 8 * 8 * 2 + 2 * 10 * 8 * 8 * 2 + 2 * 2 * 10 * 8)
    assert rows["head/classifier"].flops == 3 * (2 * 32 * CLASSES)
    assert rows[""].flops == sum(rows[name].flops for name in ("image", "text", "embed", "trunk", "head"))


def test_keys_and_values_of_another_stream_are_counted():
    """Beside the projections: 3 questions of 10 tokens read 12 cells and themselves, 12 cells read themselves."""
    rows = {row.path: row for row in inspected(settings_of(cnn="patches", hidden_size=8), image_size=(24, 32))}
    attention = rows["trunk/layer_0/attention"].flops - sum(
        rows[f"trunk/layer_0/attention/{name}"].flops for name in ("query", "key", "value", "output")
    )
    assert attention == 2 * 2 * 8 * (3 * 10 * (12 + 10) + 12 * 12)
    settings = settings_of("cross", cnn="patches", hidden_size=8)
    rows = {row.path: row for row in inspected(settings, image_size=(24, 32))}
    path = "trunk/text_layer_0/cross_attention"
    attention = rows[path].flops - sum(rows[f"{path}/{name}"].flops for name in ("query", "key", "value", "output"))
    assert attention == 2 * 2 * 8 * (3 * 10 * 12)


def test_convolutions_by_hand():
    rows = {row.path: row for row in inspected(settings_of(cnn="resnet18", hidden_size=8), image_size=(64, 32))}
    assert rows["image/stem_conv"].flops == 2 * (32 * 16) * 7 * 7 * 3 * 64
    assert rows["image/stage_2_block_0/conv_1"].flops == 2 * (8 * 4) * 3 * 3 * 64 * 128
    assert rows["image/stage_2_block_0/conv_shortcut"].flops == 2 * (8 * 4) * 64 * 128
    assert rows["image"].outputs == ((1, 2, 1, 512),)


def test_an_image_tokenizer_by_hand():
    """6 x 8 pixels, then 3 x 4 cells of 12 features; 1x1 convolutions there, 3x3 back."""
    codes = ImageTokenizerSettings(
        quantizer=VQ(codebook_size=30, embedding_size=12),
        patch_size=1,
        widths=(8, 16),
        depths=(1, 1),
    )
    rows = {row.path: row for row in inspect_image_tokenizer(codes, image_size=(6, 8))}
    assert rows["encoder/patch"].flops == 2 * 48 * 3 * 8
    assert rows["encoder/stage_0_block_0"].flops == 2 * (2 * 48 * 8 * 8)
    assert rows["encoder/stage_1_down"].flops == 2 * 12 * 32 * 16
    assert rows["decoder/stage_1_block_0"].flops == 2 * (2 * 12 * 9 * 16 * 16)
    assert rows["quantizer"].flops == 2 * (2 * 12 * 12 * 30) and rows["quantizer"].parameters == 30 * 12
    assert rows["quantizer"].outputs[0] == (1, 3, 4, 12)
    assert rows[""].flops == sum(rows[name].flops for name in ("encoder", "quantizer", "decoder"))


def test_depthwise_convolutions_by_hand():
    rows = {
        row.path: row for row in inspected(settings_of(cnn="efficientnet_lite0", hidden_size=8), image_size=(64, 32))
    }
    assert rows["image/block_1/expand_conv"].flops == 2 * (32 * 16) * 16 * 96
    assert rows["image/block_1/depthwise_conv"].flops == 2 * (16 * 8) * 3 * 3 * 96
    assert rows["image/block_1/depthwise_conv"].parameters == 3 * 3 * 96
    assert rows["image/block_3/depthwise_conv"].flops == 2 * (8 * 4) * 5 * 5 * 144
    assert rows["image/block_3/depthwise_conv"].outputs == ((1, 8, 4, 144),)
    assert all(row.flops for path, row in rows.items() if path.startswith("image/") and path.endswith("_conv"))


@pytest.mark.parametrize(("name", "parameters"), [("mobilenet_v2", 2_223_872), ("efficientnet_lite0", 3_371_008)])
def test_parameters_of_depthwise_convolutions_count(name, parameters):
    rows = {row.path: row for row in inspected(settings_of(cnn=name, hidden_size=8))}
    assert rows["image"].parameters == parameters


@pytest.mark.parametrize(
    ("name", "features", "published"),
    [
        ("resnet18", 512, 1.814),
        ("resnet50", 2048, 4.089),
        *(pytest.param(*row, marks=pytest.mark.slow) for row in (("resnet34", 512, 3.664), ("resnet101", 2048, 7.801))),
        ("mobilenet_v2", 1280, 0.301),
        ("resnext50_32x4d", 2048, 4.230),
        ("efficientnet", 1280, 0.386),
    ],
)
def test_cnns_cost_what_is_published(name, features, published):
    """10^9 multiplications at 224 x 224 with the classifier, as torchvision lists them with its weights."""
    settings = with_changes(settings_of(cnn=name, hidden_size=8), {"num_layers": 1})
    rows = {row.path: row for row in inspected(settings, image_size=(224, 224))}
    assert rows["image"].flops / 2 + features * 1000 == pytest.approx(published * 1e9, abs=0.0006e9)


def test_rows_stand_in_order_of_calls_each_before_what_is_below_it():
    rows = inspected(settings_of("co_attention", "bidirectional"))
    paths = [row.path for row in rows]
    assert [path for path in paths if "/" not in path] == ["", "image", "text", "embed", "trunk", "head"]
    for place, path in enumerate(paths):
        assert not path or path.rpartition("/")[0] in paths[:place]
    assert paths.index("trunk/layer_0") + 1 == paths.index("trunk/layer_0/text")
    assert paths.index("trunk/layer_0/text/attention/query") < paths.index("trunk/layer_0/text/intermediate")


def test_shapes_are_those_that_a_module_returns():
    rows = {row.path: row.outputs for row in inspected(settings_of())}
    assert rows[""] == ((1, QUESTIONS, CLASSES),)
    assert rows["image"] == ((1, 6, 8, 128),)
    assert rows["embed"] == ((1, 1, 48, 256), (1, QUESTIONS, LENGTH, 256))
    assert rows["trunk/layer_0/intermediate"] == ((1, 1, 48, 1024), (1, QUESTIONS, LENGTH, 1024))


@pytest.mark.parametrize(("fusion", "attention_pattern", "head"), COMBINATIONS)
def test_every_kernel_that_is_called_costs_something(fusion, attention_pattern, head):
    """A new kind of module with weights must join the formulas."""
    settings = settings_of(fusion, attention_pattern, head, cnn="patches")
    rows = {row.path: row for row in inspected(settings)}
    for path, _ in jax.tree_util.tree_leaves_with_path(abstract(settings)[2]["params"]):
        *module, leaf = jax.tree_util.keystr(path, simple=True, separator="/").split("/")
        row = rows["/".join(module)]
        assert leaf != "kernel" or row.flops or not row.outputs, path


def test_how_layers_are_run_does_not_count():
    plain = inspected(settings_of())
    assert inspected(settings_of(remat=True)) == inspected(settings_of(scan_layers=True)) == plain


def test_features_need_no_cnn():
    settings = settings_of(hidden_size=8)
    settings = with_changes(settings, {"image": Features(feature_size=40)})
    rows = {row.path: row for row in inspected(settings, image_size=(3, 4))}
    assert "image" not in rows
    assert rows["embed/image_fc"].flops == 2 * 12 * 40 * 8
