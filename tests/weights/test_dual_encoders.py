"""CLIP, SigLIP, ChineseCLIP and ALIGN: both sides and their product are transformers' own; mistakes are red."""

import dataclasses
import json
import math
import shutil
import warnings

import numpy as np
import pytest

from tests.weights.test_parity import same_files, verified
from vlm_jax.errors import InputError
from vlm_jax.settings.changes import with_changes
from vlm_jax.training.pretrained import open_pretrained
from vlm_jax.trees import flatten, unflatten
from vlm_jax.weights.align import ALIGN
from vlm_jax.weights.checks import BOUND, score
from vlm_jax.weights.chinese_clip import CHINESE_CLIP
from vlm_jax.weights.export import export
from vlm_jax.weights.family import PublishedFile
from vlm_jax.weights.import_folder import read, write_import
from vlm_jax.weights.siglip import SIGLIP
from vlm_jax.weights.source import Tensor, open_source

torch = pytest.importorskip("torch", reason="torch is the oracle")
transformers = pytest.importorskip("transformers", reason="transformers is the oracle")
pytestmark = pytest.mark.parity

IMAGE = {
    "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 48, "image_size": 32,
    "patch_size": 8,
}  # fmt: skip
TEXT = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 40, "vocab_size": 23,
    "max_position_embeddings": 12, "bos_token_id": 21, "eos_token_id": 22, "pad_token_id": 1,
}  # fmt: skip
BERT = {name: size for name, size in TEXT.items() if not name.endswith("token_id")}
CNN = {"width_coefficient": 0.1, "depth_coefficient": 0.5, "depthwise_padding": [2], "batch_norm_eps": 1e-2}
CLASSES = {
    "CLIPModel": ("CLIPConfig", {"vision_config": IMAGE, "text_config": TEXT, "projection_dim": 7}),
    "SiglipModel": ("SiglipConfig", {"vision_config": IMAGE, "text_config": TEXT | {"projection_size": 24}}),
    "ChineseCLIPModel": (
        "ChineseCLIPConfig", {"vision_config": IMAGE, "text_config": BERT, "projection_dim": 7},
    ),
    "AlignModel": ("AlignConfig", {"vision_config": CNN, "text_config": BERT, "projection_dim": 32}),
}  # fmt: skip
"""Of each class the config's class and its settings."""
PREPROCESSOR = {  # both sides are odd further down
    "image_processor_type": "EfficientNetImageProcessor", "size": {"height": 141, "width": 102}, "resample": 2,
    "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5], "include_top": False, "do_center_crop": False,
}  # fmt: skip
LAYERS = {f"{side} layer {index}" for side in ("image", "text") for index in (1, 2)}
HEADS = {"logits_per_image", "logits_per_text", "text_embeds", "image_embeds"}


def publish(name, folder, std=0.2, *, image=None, text=None):
    """A shaken model of a class as transformers saves it; `image` and `text` are changes of its sides' settings."""
    kind, settings = CLASSES[name]
    settings = settings | {"text_config": settings["text_config"] | (text or {})}
    settings |= {"vision_config": settings["vision_config"] | (image or {})}
    torch.manual_seed(0)
    model = getattr(transformers, name)(getattr(transformers, kind)(**settings))
    with torch.no_grad():
        for path, tensor in model.state_dict().items():
            if tensor.dtype.is_floating_point:
                tensor.copy_(shaken(path, torch.randn(tensor.shape), std))
    model.save_pretrained(folder)
    if name == "AlignModel":
        (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR))
    return folder


def shaken(path, noise, std):
    """Convolutions have less than unit gain: many layers are chaotic in float32."""
    if path.endswith("running_var"):
        return torch.exp(noise - 1)
    if noise.ndim == 4 and "blocks" in path:
        return 0.6 * noise / math.sqrt(math.prod(noise.shape[1:]))
    is_scale = ("norm" in path or "_bn" in path or path == "temperature") and not path.endswith("bias")
    return std * noise + float(is_scale and not path.endswith("running_mean"))


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """The folder of a class, written once."""
    folders = {}

    def folder_of(name):
        if name not in folders:
            folders[name] = publish(name, tmp_path_factory.mktemp("published") / name)
        return folders[name]

    return folder_of


@pytest.mark.parametrize("std", [0.02, 0.2])
@pytest.mark.parametrize("name", CLASSES)
def test_every_layer_and_head_is_the_published_one(name, std, tmp_path):
    layers = {name for name in LAYERS if name.startswith("text")} if name == "AlignModel" else LAYERS
    blocks = {f"image block {number}" for number in range(1, 11)} if name == "AlignModel" else set()
    names = verified(publish(name, tmp_path / name, std), ())
    assert set(names) == {"exported again"} | layers | blocks | HEADS


def test_the_first_clip_files_end_their_texts_with_the_largest_id(tmp_path):
    folder = publish("CLIPModel", tmp_path / "first", text={"eos_token_id": 2})
    assert set(verified(folder, ())) >= HEADS
    converted = read(str(folder))
    assert converted.architecture.model.text.end_id is None
    export(converted, tmp_path / "exported")
    assert json.loads((tmp_path / "exported" / "config.json").read_text())["text_config"]["eos_token_id"] == 2


@pytest.mark.parametrize("name", CLASSES)
def test_an_import_exports_the_file_and_transformers_loads_it(name, published, tmp_path):
    write_import(read(str(published(name))), tmp_path / "imported")
    assert set(verified(tmp_path / "imported", ())) >= HEADS
    assert export(read(str(tmp_path / "imported")), tmp_path / "exported") == name
    assert same_files(published(name), tmp_path / "exported")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _, info = getattr(transformers, name).from_pretrained(tmp_path / "exported", output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))


@pytest.mark.parametrize(("name", "default"), [("CLIPModel", "quick_gelu"), ("ChineseCLIPModel", "gelu")])
def test_the_second_settings_of_old_files_come_first(name, default, published, tmp_path):
    folder = tmp_path / "old"
    shutil.copytree(published(name), folder)
    config = json.loads((folder / "config.json").read_text())
    config["text_config"] |= {"hidden_act": "relu", "layer_norm_eps": 0.1, "num_attention_heads": 2}
    config["text_config_dict"] = CLASSES[name][1]["text_config"] | {"layer_norm_eps": 1e-3}
    (folder / "config.json").write_text(json.dumps(config))
    assert set(verified(folder, ())) >= HEADS
    converted = read(str(folder))
    layers = converted.architecture.model.text.layers
    assert (layers.hidden_act, layers.layer_norm_eps, layers.num_attention_heads) == (default, 1e-3, 4)
    export(converted, tmp_path / "exported")
    assert "text_config_dict" not in json.loads((tmp_path / "exported" / "config.json").read_text())
    assert read(str(tmp_path / "exported")).architecture.model == converted.architecture.model


def test_the_maximum_over_the_grid(tmp_path):
    """An option of ALIGN's config, that no published file takes; an export says it again."""
    folder = publish("AlignModel", tmp_path / "maximum", image={"pooling_type": "max"})
    write_import(read(str(folder)), tmp_path / "imported")
    assert set(verified(tmp_path / "imported", ())) >= HEADS
    assert read(str(folder)).image_side.architecture.pooling == "max"


def test_defaults_of_the_classes_hold_for_what_a_config_leaves_out(tmp_path):
    """Those of the text side; files name what differs."""
    for name, family in (("SiglipModel", SIGLIP), ("ChineseCLIPModel", CHINESE_CLIP), ("AlignModel", ALIGN)):
        kind, _ = CLASSES[name]
        theirs = getattr(transformers, kind)().text_config
        projection = "visual_projection.weight"
        tensors = {projection: Tensor(tmp_path, (512, 768), "F32", projection, slice(0))}
        architecture = family.settings(PublishedFile({}, {projection: projection}, tensors, name))
        ours = family.config(architecture)["text_config"]
        assert ours == {key: getattr(theirs, key) for key in ours}, name


def test_its_image_side_is_an_image_encoder(published, tmp_path):
    """A run may start from it, with the numbers that the class of the image side has."""
    source = open_pretrained(str(published("CLIPModel")))
    model = transformers.CLIPModel.from_pretrained(published("CLIPModel"))
    alone = transformers.CLIPVisionModelWithProjection(transformers.CLIPVisionConfig(**IMAGE, projection_dim=7))
    alone.vision_model.load_state_dict(model.vision_model.state_dict())
    alone.visual_projection.load_state_dict(model.visual_projection.state_dict())
    alone.save_pretrained(tmp_path / "alone")
    other = open_pretrained(str(tmp_path / "alone"))
    assert (source.image, source.input) == (other.image, other.input)
    assert source.leaves.keys() == other.leaves.keys()
    assert all(np.array_equal(leaf, other.leaves[path]) for path, leaf in source.leaves.items())


@pytest.mark.parametrize(
    ("name", "changes", "word"),
    [
        ("CLIPModel", {"text_config": TEXT | {"hidden_act": "swish"}}, "hidden_act = 'swish'"),
        ("CLIPModel", {"text_config": TEXT | {"num_attention_heads": 5}}, "num_attention_heads = 5"),
        ("CLIPModel", {"text_config": 3}, "text_config = 3"),
        ("SiglipModel", {"text_config": TEXT | {"projection_size": 16}}, "16 .*projection_size.* 24 .*hidden_size"),
        ("SiglipModel", {"vision_config": IMAGE | {"vision_use_head": False}}, "vision_use_head = False"),
        ("AlignModel", {"projection_dim": 640}, "projection_dim = 640.* 32"),
        ("AlignModel", {"vision_config": CNN | {"pooling_type": "sum"}}, "pooling_type = 'sum'"),
        ("AlignModel", {"vision_config": CNN | {"hidden_dim": 5}}, "hidden_dim = 5"),
        ("AlignModel", {"vision_config": CNN | {"strides": [2] * 7}}, "strides"),
        ("AlignModel", {"vision_config": [3]}, "vision_config = .3."),
        ("ChineseCLIPModel", {"text_config": BERT | {"is_decoder": True}}, "decoder"),
        ("ChineseCLIPModel", {"model_type": "clip"}, "ChineseCLIPModel"),
    ],
    ids=str,
)
def test_what_is_not_supported_is_refused(name, changes, word, published, tmp_path):
    folder = tmp_path / "wrong"
    shutil.copytree(published(name), folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))
    with pytest.raises(InputError, match=word):
        read(str(folder))


# Planted mistakes


def setting(**changes):
    return lambda model: with_changes(model, {name.replace("__", "."): value for name, value in changes.items()})


def exchanged(first, second):
    def change(leaves):
        leaves[first], leaves[second] = leaves[second], leaves[first]

    return change


def zero(path):
    return lambda leaves: leaves.update({path: np.zeros_like(leaves[path])})


def turned(path):
    return lambda leaves: leaves.update({path: leaves[path][::-1]})


LAYER, BLOCK = "text_encoder/trunk/layer_1", "image_encoder/image/block_4"
PROJECTION, POOLER = "text_encoder/projection", "image_encoder/head/attention_pooler"
SETTINGS = {
    "gelu for quick_gelu": ("CLIPModel", setting(text__layers__hidden_act="gelu")),
    "a text that attends to later tokens": (
        "CLIPModel", setting(text__layers__attention_pattern="bidirectional"),
    ),
    "the first token in the place of the end": ("CLIPModel", setting(text__pooling="first_token")),
    "another end token": ("CLIPModel", setting(text__end_id=5)),
    "another epsilon": ("CLIPModel", setting(text__layers__layer_norm_eps=1e-3)),
    "the norm behind each part": ("CLIPModel", setting(text__layers__pre_norm=False)),
    "the first token in the place of the last": ("SiglipModel", setting(text__pooling="first_token")),
    "a text that attends to earlier tokens alone": (
        "SiglipModel", setting(text__layers__attention_pattern="causal"),
    ),
    "exact gelu in texts": ("SiglipModel", setting(text__layers__hidden_act="gelu")),
    "quick_gelu in images": ("SiglipModel", setting(image__hidden_act="quick_gelu")),
    "the last token in the place of [CLS]": ("ChineseCLIPModel", setting(text__pooling="last_token")),
    "quick_gelu in BERT": ("ChineseCLIPModel", setting(text__layers__hidden_act="quick_gelu")),
    "the norm before the first layer left out": ("ChineseCLIPModel", setting(image__embedding_norm=False)),
    "BERT's norms before each part": ("ChineseCLIPModel", setting(text__layers__pre_norm=True)),
    "the maximum for the mean": ("AlignModel", setting(image_head="max")),
    "another padding of a block": ("AlignModel", setting(image__depthwise_padding=())),
    "another token than [CLS]": ("AlignModel", setting(text__pooling="last_token")),
}  # fmt: skip
LEAVES = {
    "query and key": ("CLIPModel", exchanged(f"{LAYER}/attention/query/kernel", f"{LAYER}/attention/key/kernel")),
    "both norms of a layer": (
        "CLIPModel", exchanged(f"{LAYER}/attention_norm/scale", f"{LAYER}/output_norm/scale"),
    ),
    "the scale left out": ("CLIPModel", zero("logit_scale")),
    "a projection turned": ("CLIPModel", turned(f"{PROJECTION}/kernel")),
    "the bias of products left out": ("SiglipModel", zero("logit_bias")),
    "scale and bias of products": ("SiglipModel", exchanged("logit_scale", "logit_bias")),
    "the bias of a head left out": ("SiglipModel", zero(f"{PROJECTION}/bias")),
    "query and value of the pooler": (
        "SiglipModel", exchanged(f"{POOLER}/attention/query/kernel", f"{POOLER}/attention/value/kernel"),
    ),
    "token types left out": ("ChineseCLIPModel", zero("text_encoder/text/segment/embedding")),
    "BERT's norms exchanged": (
        "ChineseCLIPModel", exchanged(f"{LAYER}/attention_norm/scale", f"{LAYER}/output_norm/scale"),
    ),
    "an image projection turned": ("ChineseCLIPModel", turned("image_encoder/head/projection/kernel")),
    "the temperature left out": ("AlignModel", lambda leaves: leaves.update({"temperature": np.float32(1.0)})),
    "the bias of ALIGN's projection left out": ("AlignModel", zero(f"{PROJECTION}/bias")),
    "two norms of a block": (
        "AlignModel", exchanged(f"{BLOCK}/expand_norm/scale", f"{BLOCK}/depthwise_norm/scale"),
    ),
    "positions of texts turned": ("AlignModel", turned("text_encoder/text/position/embedding")),
}  # fmt: skip


@pytest.fixture(scope="module")
def reference(published):
    """The port of a class, its inputs and what transformers computes of them."""
    from vlm_jax.weights.oracles import load_oracle

    known = {}

    def reference_of(name):
        if name not in known:
            converted = read(str(published(name)))
            folder = published(name).parent / "oracle"
            model, unlike = load_oracle(converted, open_source(str(published(name))), name, folder)
            assert not unlike
            inputs = converted.family.kind.inputs(converted.architecture)
            known[name] = converted, inputs, converted.family.kind.references(model, inputs)
        return known[name]

    return reference_of


def worst(converted, inputs, references):
    outputs = converted.family.kind.outputs(converted.module, converted.params, inputs)
    if any(outputs[name].shape != x.shape for name, x in references.items()):
        return np.inf
    shown = {name: ~np.isnan(x) for name, x in references.items()}
    return max(score(outputs[name][shown[name]], x[shown[name]]) for name, x in references.items())


@pytest.mark.parametrize("name", CLASSES)
def test_without_a_mistake_it_is_green(name, reference):
    assert worst(*reference(name)) <= BOUND / 2  # products too


@pytest.mark.parametrize("mistake", SETTINGS)
def test_a_wrong_setting_is_red(mistake, reference):
    name, change = SETTINGS[mistake]
    converted, inputs, references = reference(name)
    model = change(converted.architecture.model)
    wrong = dataclasses.replace(converted, architecture=converted.architecture._replace(model=model))
    assert worst(wrong, inputs, references) > BOUND


@pytest.mark.parametrize("mistake", LEAVES)
def test_a_wrong_parameter_is_red(mistake, reference):
    name, change = LEAVES[mistake]
    converted, inputs, references = reference(name)
    leaves = flatten(converted.params)
    change(leaves)
    assert worst(dataclasses.replace(converted, params=unflatten(leaves)), inputs, references) > BOUND


def test_a_mask_of_padding_is_red_in_siglip(reference):
    """Its texts are read with their padding."""
    converted, inputs, references = reference("SiglipModel")
    inputs = inputs | {"text_mask": np.arange(inputs["input_ids"].shape[1])[None] < np.array([[12], [6], [3]])}
    outputs = converted.family.kind.outputs(converted.module, converted.params, inputs)
    assert score(outputs["text_embeds"], references["text_embeds"]) > BOUND
