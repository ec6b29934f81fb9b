"""CLIP: both sides and their product are transformers' own, and planted mistakes are red."""

import dataclasses
import json
import shutil
import warnings

import numpy as np
import pytest

from tests.weights.test_parity import same_files, verified
from vlm_jax.errors import InputError
from vlm_jax.settings.changes import with_changes
from vlm_jax.training.pretrained import open_pretrained
from vlm_jax.trees import flatten, unflatten
from vlm_jax.weights.checks import BOUND, score
from vlm_jax.weights.export import export
from vlm_jax.weights.import_folder import read, write_import
from vlm_jax.weights.source import open_source

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
CLASSES = {
    "CLIPModel": ("CLIPConfig", {"vision_config": IMAGE, "text_config": TEXT, "projection_dim": 7}),
}
"""Of each class the config's class and its settings."""
HEADS = {"logits_per_image", "logits_per_text", "text_embeds", "image_embeds"}


def publish(name, folder, std=0.2, **text):
    """A shaken model of a class as transformers saves it."""
    kind, settings = CLASSES[name]
    settings = settings | {"text_config": settings["text_config"] | text}
    torch.manual_seed(0)
    model = getattr(transformers, name)(getattr(transformers, kind)(**settings))
    with torch.no_grad():
        for path, parameter in model.named_parameters():
            is_scale = "norm" in path and path.endswith("weight")
            parameter.copy_(std * torch.randn(parameter.shape) + float(is_scale))
    model.save_pretrained(folder)
    return folder


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
    layers = {f"{side} layer {index}" for side in ("image", "text") for index in (1, 2)}
    names = verified(publish(name, tmp_path / name, std), ())
    assert set(names) == {"exported again"} | layers | HEADS


def test_the_first_clip_files_end_their_texts_with_the_largest_id(tmp_path):
    folder = publish("CLIPModel", tmp_path / "first", eos_token_id=2)
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


def test_the_second_settings_of_old_files_come_first(published, tmp_path):
    folder = tmp_path / "old"
    shutil.copytree(published("CLIPModel"), folder)
    config = json.loads((folder / "config.json").read_text())
    config["text_config"] |= {"hidden_act": "gelu", "layer_norm_eps": 0.1, "num_attention_heads": 2}
    config["text_config_dict"] = TEXT | {"layer_norm_eps": 1e-3}
    (folder / "config.json").write_text(json.dumps(config))
    assert set(verified(folder, ())) >= HEADS
    converted = read(str(folder))
    layers = converted.architecture.model.text.layers
    assert (layers.hidden_act, layers.layer_norm_eps, layers.num_attention_heads) == ("quick_gelu", 1e-3, 4)
    export(converted, tmp_path / "exported")
    assert "text_config_dict" not in json.loads((tmp_path / "exported" / "config.json").read_text())
    assert read(str(tmp_path / "exported")).architecture.model == converted.architecture.model


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
    ("changes", "word"),
    [
        ({"text_config": TEXT | {"hidden_act": "swish"}}, "hidden_act = 'swish'"),
        ({"text_config": TEXT | {"num_attention_heads": 5}}, "num_attention_heads = 5"),
        ({"text_config": 3}, "text_config = 3"),
    ],
)
def test_what_is_not_supported_is_refused(changes, word, published, tmp_path):
    folder = tmp_path / "wrong"
    shutil.copytree(published("CLIPModel"), folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))
    with pytest.raises(InputError, match=word):
        read(str(folder))


# Planted mistakes


def text_setting(**changes):
    return lambda model: with_changes(model, {f"text.{name}": value for name, value in changes.items()})


def exchanged(first, second):
    def change(leaves):
        leaves[first], leaves[second] = leaves[second], leaves[first]

    return change


LAYER = "text_encoder/trunk/layer_1"
SETTINGS = {
    "gelu for quick_gelu": text_setting(**{"layers.hidden_act": "gelu"}),
    "a text that attends to later tokens": text_setting(**{"layers.attention_pattern": "bidirectional"}),
    "the first token in the place of the end": text_setting(pooling="first_token"),
    "another end token": text_setting(end_id=5),
    "another epsilon": text_setting(**{"layers.layer_norm_eps": 1e-3}),
    "the norm behind each part": text_setting(**{"layers.pre_norm": False}),
}
LEAVES = {
    "query and key": exchanged(f"{LAYER}/attention/query/kernel", f"{LAYER}/attention/key/kernel"),
    "both norms of a layer": exchanged(f"{LAYER}/attention_norm/scale", f"{LAYER}/output_norm/scale"),
    "the scale left out": lambda leaves: leaves.update({"logit_scale": np.zeros((), np.float32)}),
    "a projection turned": lambda leaves: leaves.update(
        {"text_encoder/projection/kernel": leaves["text_encoder/projection/kernel"][::-1]}
    ),
}


@pytest.fixture(scope="module")
def reference(published):
    """The port, its inputs and what transformers computes of them."""
    from vlm_jax.weights.oracles import load_oracle

    converted = read(str(published("CLIPModel")))
    folder = published("CLIPModel").parent / "oracle"
    model, unlike = load_oracle(converted, open_source(str(published("CLIPModel"))), "CLIPModel", folder)
    assert not unlike
    inputs = converted.family.kind.inputs(converted.architecture)
    return converted, inputs, converted.family.kind.references(model, inputs)


def worst(converted, inputs, references):
    outputs = converted.family.kind.outputs(converted.module, converted.params, inputs)
    shown = {name: ~np.isnan(x) for name, x in references.items()}
    return max(score(outputs[name][shown[name]], x[shown[name]]) for name, x in references.items())


def test_without_a_mistake_it_is_green(reference):
    assert worst(*reference) <= BOUND


@pytest.mark.parametrize("mistake", SETTINGS)
def test_a_wrong_setting_is_red(mistake, reference):
    converted, inputs, references = reference
    model = SETTINGS[mistake](converted.architecture.model)
    wrong = dataclasses.replace(converted, architecture=converted.architecture._replace(model=model))
    assert worst(wrong, inputs, references) > BOUND


@pytest.mark.parametrize("mistake", LEAVES)
def test_a_wrong_parameter_is_red(mistake, reference):
    converted, inputs, references = reference
    leaves = flatten(converted.params)
    LEAVES[mistake](leaves)
    assert worst(dataclasses.replace(converted, params=unflatten(leaves)), inputs, references) > BOUND
