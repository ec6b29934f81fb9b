"""ViT, DeiT, DINOv2, CLIP and SigLIP: every class is proven by transformers' own, and planted mistakes are red."""

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.weights.test_mutations import exchanged, with_leaves, with_settings
from tests.weights.test_parity import same_files, verified
from vlm_jax.errors import InputError
from vlm_jax.models import vit
from vlm_jax.trees import flatten
from vlm_jax.weights import image_proof
from vlm_jax.weights.checks import BOUND, score
from vlm_jax.weights.export import export
from vlm_jax.weights.import_folder import read, write_import
from vlm_jax.weights.source import WEIGHTS, open_source

torch = pytest.importorskip("torch", reason="torch is the oracle")
transformers = pytest.importorskip("transformers", reason="transformers is the oracle")
pytestmark = pytest.mark.parity

SIZES = {
    "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 48, "image_size": 32,
    "patch_size": 8,
}  # fmt: skip
SMALL_TEXT = {
    "hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 3, "intermediate_size": 24, "vocab_size": 9,
    "max_position_embeddings": 5, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
LABELS = {"id2label": {index: f"animal {index}" for index in range(5)}}
BOTH = {"vision_config": SIZES, "text_config": SMALL_TEXT}
DINO = {name: size for name, size in SIZES.items() if name != "intermediate_size"} | {"mlp_ratio": 2}
CLASSES = {
    "ViTModel": ("ViTConfig", SIZES, {"pooled"}),
    "ViTForImageClassification": ("ViTConfig", SIZES | LABELS, {"logits"}),
    "DeiTModel": ("DeiTConfig", SIZES, {"pooled"}),
    "DeiTForImageClassification": ("DeiTConfig", SIZES | LABELS, {"logits"}),
    "DeiTForImageClassificationWithTeacher": ("DeiTConfig", SIZES | LABELS, {"logits"}),
    "Dinov2Model": ("Dinov2Config", DINO, set()),
    "Dinov2ForImageClassification": ("Dinov2Config", DINO | LABELS, {"logits"}),
    "CLIPVisionModel": ("CLIPVisionConfig", SIZES, set()),
    "CLIPVisionModelWithProjection": ("CLIPVisionConfig", SIZES | {"projection_dim": 7}, {"projected"}),
    "CLIPForImageClassification": ("CLIPConfig", BOTH | LABELS, {"logits"}),
    "SiglipVisionModel": ("SiglipVisionConfig", SIZES, {"pooled"}),
    "SiglipForImageClassification": ("SiglipConfig", BOTH | LABELS, {"pooled", "logits"}),
}
"""Of each class the config's class, its settings, and the heads."""
PREPROCESSOR = {
    "image_processor_type": "ViTImageProcessor", "size": {"height": 32, "width": 32}, "resample": 2,
    "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5],
}  # fmt: skip


LOSSES = {
    "ViTForImageClassification": "logits", "DeiTForImageClassificationWithTeacher": "logits",
    "Dinov2ForImageClassification": "logits", "CLIPVisionModelWithProjection": "projected",
    "SiglipVisionModel": "pooled",
}  # fmt: skip
"""A class of each family, with what its gradients are taken of."""


def publish(name, folder, dtype=torch.float32, std=0.2):
    """A shaken model of a class as transformers saves it: tensors have the names of published files."""
    config, settings, _ = CLASSES[name]
    torch.manual_seed(0)
    model = getattr(transformers, name)(getattr(transformers, config)(**settings))
    with torch.no_grad():
        for path, parameter in model.named_parameters():
            is_scale = "norm" in path and path.endswith("weight")
            parameter.copy_(std * torch.randn(parameter.shape) + float(is_scale))
    model.to(dtype).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR))
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


# Proofs


@pytest.mark.parametrize("name", CLASSES)
def test_every_layer_and_head_is_the_published_one(name, published):
    names = verified(published(name))
    expected = {"exported again", "embeddings", "layer 1", "layer 2", "last state", "at 40 x 48 pixels"}
    expected |= CLASSES[name][2] | (set() if name.startswith("Siglip") else {"class token"})
    assert set(names) == expected


@pytest.mark.parametrize("name", LOSSES)
def test_small_weights_are_the_published_ones_too(name, tmp_path):
    """Of the deviation that models of base size have."""
    assert {"layer 2", "at 40 x 48 pixels"} <= set(verified(publish(name, tmp_path / name, std=0.02)))


@pytest.mark.parametrize(
    ("name", "exported"),
    [
        ("DeiTForImageClassificationWithTeacher", "DeiTForImageClassificationWithTeacher"),
        ("Dinov2ForImageClassification", "Dinov2ForImageClassification"),
        ("CLIPForImageClassification", "CLIPForImageClassification"),
    ],
)
def test_the_folder_of_an_import_is_verified_and_exports_the_file(name, exported, published, tmp_path):
    write_import(read(str(published(name))), tmp_path / "imported")
    assert "exported again" in verified(tmp_path / "imported")  # transformers loads the export
    converted = read(str(tmp_path / "imported"))
    assert export(converted, tmp_path / "exported") == exported
    if name == exported:
        assert same_files(published(name), tmp_path / "exported")
    if "logits" in CLASSES[name][2]:
        assert converted.labels == tuple(LABELS["id2label"].values())
        config = json.loads((tmp_path / "exported" / "config.json").read_text())
        assert config["id2label"] == {str(index): label for index, label in LABELS["id2label"].items()}


def test_the_size_of_the_position_table_is_compared_too(published, tmp_path):
    """Published DINOv2 has a table for 518 pixels and is given 224."""
    folder = tmp_path / "larger"
    shutil.copytree(published("Dinov2Model"), folder)
    settings = PREPROCESSOR | {"size": {"height": 40, "width": 40}}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    sizes = [name for name in verified(folder) if name.startswith("at ")]
    assert sizes == ["at 32 x 32 pixels", "at 48 x 56 pixels"]
    converted = with_settings(read(str(folder)), image_size=(24, 40))  # transformers interpolates no such table
    assert image_proof.image_sizes(converted) == [(24, 40)]


def test_feed_forward_layers_may_have_gates(tmp_path, monkeypatch):
    """The largest DINOv2 has SwiGLU."""
    config, settings, heads = CLASSES["Dinov2Model"]
    monkeypatch.setitem(CLASSES, "Dinov2Model", (config, settings | {"use_swiglu_ffn": True}, heads))
    folder = publish("Dinov2Model", tmp_path / "gated")
    write_import(read(str(folder)), tmp_path / "imported")
    assert "layer 2" in verified(tmp_path / "imported")
    converted = read(str(tmp_path / "imported"))
    assert converted.architecture.model.intermediate_size == 32
    export(converted, tmp_path / "exported")
    assert same_files(folder, tmp_path / "exported")


def test_siglip_leaves_out_pixels_that_fill_no_patch(tmp_path, monkeypatch):
    """so400m-patch14-384 does."""
    config, settings, heads = CLASSES["SiglipVisionModel"]
    monkeypatch.setitem(CLASSES, "SiglipVisionModel", (config, settings | {"patch_size": 7}, heads))
    folder = publish("SiglipVisionModel", tmp_path / "rest")
    assert {"pooled", "at 39 x 46 pixels"} <= set(verified(folder))
    model = read(str(folder)).architecture.model
    assert model.drop_remainder and model.grid_size((32, 32)) == (4, 4)


def test_images_need_not_be_square(tmp_path, monkeypatch):
    """transformers interpolates no such table, so that one size is compared."""
    config, settings, heads = CLASSES["ViTModel"]
    monkeypatch.setitem(CLASSES, "ViTModel", (config, settings | {"image_size": [24, 40]}, heads))
    folder = publish("ViTModel", tmp_path / "wide")
    (folder / "preprocessor_config.json").unlink()
    assert not [name for name in verified(folder) if name.startswith("at ")]
    export(read(str(folder)), tmp_path / "exported")
    assert json.loads((tmp_path / "exported" / "config.json").read_text())["image_size"] == [24, 40]


def test_the_second_settings_of_old_clip_files_come_first(published, tmp_path):
    """With the defaults of the class for what they lack, as transformers has it; an export has them once."""
    folder = tmp_path / "old"
    shutil.copytree(published("CLIPForImageClassification"), folder)
    config = json.loads((folder / "config.json").read_text())
    config["vision_config"] |= {"hidden_act": "gelu", "layer_norm_eps": 0.1, "num_attention_heads": 2}
    config["vision_config_dict"] = SIZES | {"layer_norm_eps": 1e-3}
    (folder / "config.json").write_text(json.dumps(config))
    assert "layer 2" in verified(folder)
    converted = read(str(folder))
    model = converted.architecture.model
    assert (model.hidden_act, model.layer_norm_eps, model.num_attention_heads) == ("quick_gelu", 1e-3, 3)
    export(converted, tmp_path / "exported")
    assert "vision_config_dict" not in json.loads((tmp_path / "exported" / "config.json").read_text())
    assert read(str(tmp_path / "exported")).architecture.model == model
    (folder / "config.json").write_text(json.dumps(config | {"vision_config_dict": 3}))
    with pytest.raises(InputError, match="vision_config_dict = 3"):
        read(str(folder))


def test_a_bfloat16_file_comes_back_in_its_type(tmp_path):
    """With the token of masked patches, which nothing is computed from."""
    folder = publish("Dinov2Model", tmp_path / "half", torch.bfloat16)
    export(read(str(folder)), tmp_path / "exported")
    assert same_files(folder, tmp_path / "exported")
    tensor = open_source(str(tmp_path / "exported")).tensors["embeddings.mask_token"]
    assert tensor.dtype == "BF16"


# Training


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_are_those_of_the_published_model(name, published, tmp_path):
    """Of float64, at a size whose positions are interpolated; compared under the names of files."""
    attributes = {"logits": "logits", "projected": "image_embeds", "pooled": "pooler_output"}
    converted, output = read(str(published(name))), LOSSES[name]
    pixels = jnp.asarray(noise((2, 40, 48, 3)))
    params = jax.tree.map(jnp.asarray, converted.params)
    with jax.default_matmul_precision("highest"):
        loss = lambda params: jnp.square(getattr(converted.module.apply({"params": params}, pixels), output)).sum()  # noqa: E731
        gradients = jax.device_get(jax.jit(jax.grad(loss))(params))
    export(dataclasses.replace(converted, params=gradients, source_tensors={}), tmp_path / "ours")
    # Eager attention has a softmax in float32, whatever the type of the model.
    options = {"dtype": torch.float64, "attn_implementation": "sdpa"}
    model = getattr(transformers, name).from_pretrained(published(name), **options).eval()
    told = {} if name.startswith("Dinov2") else {"interpolate_pos_encoding": True}
    result = model(torch.tensor(np.asarray(pixels)).permute(0, 3, 1, 2).double(), **told)
    getattr(result, attributes[output]).square().sum().backward()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.zeros_like(parameter) if parameter.grad is None else parameter.grad)
    model.save_pretrained(tmp_path / "theirs")
    family = converted.family
    ours, theirs = (  # with or without the prefix, a file is the same
        {path.removeprefix(f"{family.prefix}."): x for path, x in load_file(tmp_path / side / WEIGHTS).items()}
        for side in ("ours", "theirs")
    )
    assert set(theirs) - set(ours) <= set(family.unread)
    largest = max(np.abs(x).max() for x in theirs.values())
    for tensor, gradient in ours.items():
        bound = 2e-5 * max(np.abs(theirs[tensor]).max(), 1e-2 * largest)
        assert np.abs(gradient - theirs[tensor]).max() <= bound, tensor


# Planted mistakes


@pytest.fixture(scope="module")
def ports(published, tmp_path_factory):
    """The port of a class, and pixels of two sizes with what the class computes of them."""
    known = {}

    def port_of(name):
        if name not in known:
            from vlm_jax.weights.image_oracle import image_references
            from vlm_jax.weights.oracles import load_oracle

            converted, source = read(str(published(name))), open_source(str(published(name)))
            model, _ = load_oracle(converted, source, name, tmp_path_factory.mktemp("oracle") / name)
            pixels = [noise((2, *size, 3)) for size in image_proof.image_sizes(converted)]
            known[name] = converted, [(x, image_references(converted, model, x)) for x in pixels]
        return known[name]

    return port_of


def noise(shape):
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


def worst(converted, pairs):
    """How far the outputs are from the references of some sizes, as a multiple of the bound."""
    ratios = []
    for pixels, references in pairs:
        outputs = image_proof.image_outputs(converted, pixels)
        ratios += [score(x, references[name]) / BOUND for name, x in outputs.items()]
    return max(ratios)


def without(part):
    """A setting of the encoder is off, and its parameters are gone."""
    setting, paths = {"layer_scale": ("layer_scale", "_scale/"), "embedding_norm": ("embedding_norm", "embed/norm/")}[
        part
    ]

    def plant(converted):
        changed = with_settings(converted, **{setting: False})
        return with_leaves(changed, lambda leaves: {path: x for path, x in leaves.items() if paths not in path})

    return plant


def setting(**changes):
    return lambda converted: with_settings(converted, **changes)


def reads(pooling):
    """The classifier reads something else."""
    return lambda converted: dataclasses.replace(
        converted, architecture=converted.architecture._replace(pooling=pooling)
    )


def swapped(first, second):
    return lambda converted: with_leaves(converted, lambda leaves: exchanged(leaves, first, second))


def rolled(path):
    """The rows of a table in another order, or zero where there is one."""

    def plant(converted):
        table = flatten(converted.params)[path]
        rows = np.roll(table, 1, axis=0) if len(table) > 1 else 0 * table
        return with_leaves(converted, lambda leaves: leaves | {path: rows})

    return plant


TOKENS, POSITIONS = "image/embed/tokens/embedding", "image/embed/positions/embedding"
MISTAKES = {
    "layer scale left out": ("Dinov2ForImageClassification", without("layer_scale")),
    "one layer scale for the other": ("Dinov2ForImageClassification", swapped("attention_scale", "output_scale")),
    "the classifier reads the mean": ("ViTForImageClassification", reads("mean")),
    "class token left out": ("ViTForImageClassification", rolled(TOKENS)),
    "positions off by one": ("ViTForImageClassification", rolled(POSITIONS)),
    "one norm for the other": ("ViTForImageClassification", swapped("attention_norm", "output_norm")),
    "epsilon 1e-4 for 1e-12": ("ViTForImageClassification", setting(layer_norm_eps=1e-4)),
    "one token for the other": ("DeiTForImageClassificationWithTeacher", rolled(TOKENS)),
    "one classifier for the other": (
        "DeiTForImageClassificationWithTeacher", swapped("class_token_classifier", "distillation_classifier"),
    ),
    "gelu for quick_gelu": ("CLIPVisionModelWithProjection", setting(hidden_act="gelu")),
    "the norm before the first layer left out": ("CLIPVisionModelWithProjection", without("embedding_norm")),
    "the last norm of every token": ("CLIPVisionModelWithProjection", setting(final_norm="every_token")),
    "quick_gelu for tanh gelu": ("SiglipForImageClassification", setting(hidden_act="quick_gelu")),
    "gelu for tanh gelu": ("SiglipForImageClassification", setting(hidden_act="gelu")),
    "query for key in the fused matrix": (
        "SiglipForImageClassification", swapped("pooler/attention/query", "pooler/attention/key"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_planted_mistake_is_red(mistake, ports):
    name, plant = MISTAKES[mistake]
    converted, pairs = ports(name)
    assert worst(converted, pairs[:1]) <= 1 < worst(plant(converted), pairs[:1])


@pytest.mark.parametrize("method", ["cubic", "linear", "antialiased"])
def test_another_interpolation_is_red(method, ports, monkeypatch):
    """At the size of the table it shows nowhere."""
    converted, pairs = ports("ViTForImageClassification")
    body = image_proof.run_image_transformer.__wrapped__
    again = jax.jit(lambda *inputs: body(*inputs), static_argnums=0)  # nothing that is traced is used again
    monkeypatch.setattr(image_proof, "run_image_transformer", again)
    resize = jax.image.resize
    options = {"antialiased": ("cubic", True)}.get(method, (method, False))
    monkeypatch.setattr(
        vit.jax.image, "resize", lambda x, shape, _, antialias: resize(x, shape, options[0], antialias=options[1])
    )
    assert worst(converted, pairs[:1]) <= 1 < worst(converted, pairs[1:])


# Refusals


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("ViTModel", {"patch_size": 10}, ("patch_size = 10", "32 x 32 pixels", "10 x 10")),
        ("ViTModel", {"patch_size": [8, 4]}, ("patch_size = [8, 4]", "square")),
        ("ViTModel", {"patch_size": [[8]]}, ("patch_size = [8]",)),
        ("ViTModel", {"patch_size": []}, ("patch_size = []",)),
        ("Dinov2Model", {"mlp_ratio": float("inf")}, ("mlp_ratio = inf",)),
        ("Dinov2Model", {"mlp_ratio": True}, ("mlp_ratio = True",)),
        ("Dinov2Model", {"mlp_ratio": "2"}, ("mlp_ratio = '2'",)),
        ("Dinov2Model", {"mlp_ratio": 1e-9}, ("mlp_ratio x hidden_size = 0",)),
        ("ViTModel", {"num_channels": 1}, ("num_channels = 1",)),
        ("ViTModel", {"qkv_bias": False}, ("qkv_bias = False",)),
        ("ViTModel", {"hidden_act": "silu"}, ("hidden_act = 'silu'", "quick_gelu")),
        ("ViTModel", {"pooler_act": "gelu"}, ("pooler_act = 'gelu'",)),
        ("ViTModel", {"num_attention_heads": 5}, ("num_attention_heads = 5", "24")),
        ("ViTModel", {"image_size": 64}, ("positions/embedding [65, 24]",)),
        ("ViTModel", {"architectures": ["BeitModel"]}, ("'BeitModel'",)),
        ("Dinov2Model", {"use_swiglu_ffn": True}, ("mlp.fc1.weight",)),
        ("ViTForImageClassification", {"num_labels": 3, "id2label": None}, ("num_labels = 3", "5 classes")),
    ],
    ids=str,
)
def test_what_would_change_the_numbers_is_refused_in_one_line(name, changes, words, published, tmp_path):
    folder = tmp_path / "wrong"
    folder.mkdir()
    (folder / "model.safetensors").symlink_to(published(name) / "model.safetensors")
    config = json.loads((published(name) / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError) as refusal:
        read(str(folder))
    message = str(refusal.value)
    assert "\n" not in message and all(word in message for word in words), message


def test_an_image_size_that_patches_do_not_divide_is_refused(published, tmp_path):
    folder = tmp_path / "wrong"
    folder.mkdir()
    for file in ("model.safetensors", "config.json"):
        (folder / file).symlink_to(published("ViTModel") / file)
    settings = PREPROCESSOR | {"size": {"height": 30, "width": 32}}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    with pytest.raises(InputError, match=r"30 x 32 pixels .* 8 x 8 .* 32 x 32") as refusal:
        read(str(folder))
    assert "\n" not in str(refusal.value)


def test_a_classifier_names_images(published):
    """By the labels of config.json, of the size that preprocessor_config.json says."""
    import vlm_jax

    model = vlm_jax.from_pretrained(str(published("ViTForImageClassification")))
    image = np.random.default_rng(2).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    ranked = model.classify(image, top=5).top
    assert {label for label, _ in ranked} == set(LABELS["id2label"].values())
    assert sum(probability for _, probability in ranked) == pytest.approx(1, abs=1e-5)
