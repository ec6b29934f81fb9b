"""BLIP: every layer and head of its three classes is transformers' own, and planted mistakes are red."""

import json
import shutil
import warnings

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.weights.blip_models import CLASSES, IMAGE, TEXT, WIDE_IMAGE, publish
from tests.weights.test_mutations import exchanged, with_leaves, with_settings
from tests.weights.test_parity import same_files, verified
from vlm_jax.errors import InputError
from vlm_jax.models import attention
from vlm_jax.models.blip import BlipForConditionalGeneration
from vlm_jax.training.pretrained import open_pretrained
from vlm_jax.trees import flatten
from vlm_jax.weights.checks import BOUND, score
from vlm_jax.weights.export import export
from vlm_jax.weights.image_text import run_recorded
from vlm_jax.weights.import_folder import read, write_import
from vlm_jax.weights.source import WEIGHTS, open_source

torch = pytest.importorskip("torch", reason="torch is the oracle")
transformers = pytest.importorskip("transformers", reason="transformers is the oracle")
pytestmark = pytest.mark.parity

HEADS = {
    "BlipForConditionalGeneration": {"logits"},
    "BlipForQuestionAnswering": {"logits", "question_embeds"},
    "BlipForImageTextRetrieval": {"itm_score", "itc_score", "question_embeds"},
}
SIDES = {
    "BlipForConditionalGeneration": ("image", "decoder"),
    "BlipForQuestionAnswering": ("image", "encoder", "decoder"),
    "BlipForImageTextRetrieval": ("image", "encoder", "text"),
}
CAPTIONS, ANSWERS, RETRIEVAL = CLASSES
WORDS = "text_decoder.cls.predictions"


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """The folder of a class, written once."""
    folders = {}

    def folder_of(name):
        if name not in folders:
            folders[name] = publish(name, tmp_path_factory.mktemp("published") / name)
        return folders[name]

    return folder_of


def config_of(folder):
    return json.loads((folder / "config.json").read_text())


def changed(folder, target, config):
    """A copy with other settings; those of a side stand beside its own."""
    shutil.copytree(folder, target)
    settings = config_of(target)
    for key, value in config.items():
        settings[key] = settings[key] | value if isinstance(value, dict) else value
    (target / "config.json").write_text(json.dumps(settings))
    return target


# Proofs


def expected(name):
    layers = {f"{side} layer {index}" for side in SIDES[name] for index in (1, 2)}
    return {"exported again", "image_embeds", "pooler_output"} | layers | HEADS[name]


@pytest.mark.parametrize("name", CLASSES)
def test_every_layer_and_head_is_the_published_one(name, published):
    assert set(verified(published(name))) == expected(name)


@pytest.mark.parametrize("name", [CAPTIONS, RETRIEVAL])
def test_the_image_side_may_be_wider_and_weights_larger(name, tmp_path):
    """As in BLIP-large: 1,024 against 768."""
    folder = publish(name, tmp_path / name, std=0.2, image=WIDE_IMAGE)
    assert set(verified(folder)) == expected(name)
    keys = [leaf for path, leaf in flatten(read(str(folder)).params).items() if "cross_attention/key/kernel" in path]
    assert {key.shape for key in keys} == {(WIDE_IMAGE["hidden_size"], TEXT["hidden_size"])}


def test_a_decoder_may_have_an_output_matrix_of_its_own(tmp_path):
    untied = {"tie_word_embeddings": False}
    folder = publish(ANSWERS, tmp_path / "untied", text=TEXT | untied, **untied)
    assert f"{WORDS}.decoder.weight" in load_file(folder / WEIGHTS)
    assert set(verified(folder)) == expected(ANSWERS)
    converted = read(str(folder))
    assert "decoder" in converted.params["text_decoder"]["head"]["words"]
    export(converted, tmp_path / "exported")
    assert same_files(folder, tmp_path / "exported")


def test_an_image_of_another_size_has_interpolated_positions(published):
    converted = read(str(published(CAPTIONS)))
    model = transformers.BlipForConditionalGeneration.from_pretrained(published(CAPTIONS)).double()
    image = np.random.default_rng(0).normal(size=(1, 40, 48, 3)).astype(np.float32)
    with torch.no_grad():
        pixels = torch.tensor(image).permute(0, 3, 1, 2).double()
        reference = model.vision_model(pixels, interpolate_pos_encoding=True).last_hidden_state.numpy()
    tokens = converted.module.apply({"params": converted.params}, jnp.asarray(image), method="image_tokens")
    assert score(np.asarray(tokens), reference) <= BOUND


# Files


@pytest.mark.parametrize("name", CLASSES)
def test_an_import_exports_the_file_and_transformers_loads_it(name, published, tmp_path):
    write_import(read(str(published(name))), tmp_path / "imported")
    assert export(read(str(tmp_path / "imported")), tmp_path / "exported") == name
    assert same_files(published(name), tmp_path / "exported")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _, info = getattr(transformers, name).from_pretrained(tmp_path / "exported", output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert config_of(tmp_path / "exported") == config_of(published(name))


def test_a_file_with_all_names_of_older_versions_is_the_same_model(published, tmp_path):
    """A tied decoder written out, its bias under both names, and buffers of positions."""
    folder = changed(published(ANSWERS), tmp_path / "old", {})
    tensors = load_file(folder / WEIGHTS)
    for side in ("text_encoder", "text_decoder.bert"):
        tensors[f"{side}.embeddings.position_ids"] = np.arange(16)[None]
    tensors[f"{WORDS}.decoder.bias"] = tensors[f"{WORDS}.bias"]
    tensors[f"{WORDS}.decoder.weight"] = tensors["text_decoder.bert.embeddings.word_embeddings.weight"]
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    converted = read(str(folder))
    plain = flatten(read(str(published(ANSWERS))).params)
    assert all(np.array_equal(leaf, plain[path]) for path, leaf in flatten(converted.params).items())
    export(converted, tmp_path / "exported")
    assert same_files(published(ANSWERS), tmp_path / "exported")


def test_a_file_is_known_by_its_tensors(published, tmp_path):
    for name in CLASSES:
        folder = changed(published(name), tmp_path / name, {"architectures": None})
        assert read(str(folder)).published.name == name


def test_its_image_side_is_an_image_encoder(published):
    source = open_pretrained(str(published(CAPTIONS)))
    assert source.image == read(str(published(CAPTIONS))).architecture.model.image
    assert source.image.hidden_size == IMAGE["hidden_size"]


REFUSED = {
    "attention_dropout = 0.1": (CAPTIONS, {"vision_config": {"attention_dropout": 0.1}}),
    "is_decoder = False": (CAPTIONS, {"text_config": {"is_decoder": False}}),
    "hidden_act = 'swish'": (CAPTIONS, {"text_config": {"hidden_act": "swish"}}),
    "num_attention_heads = 5": (CAPTIONS, {"text_config": {"num_attention_heads": 5}}),
    "text_config = 3": (CAPTIONS, {"text_config": 3}),
    "bos_token_id = -1": (CAPTIONS, {"text_config": {"bos_token_id": -1}}),
    "hidden_size = 24 of text_config and 36 of vision_config": (ANSWERS, {"vision_config": WIDE_IMAGE}),
}


@pytest.mark.parametrize("words", REFUSED)
def test_settings_that_are_not_supported_are_refused(words, published, tmp_path):
    name, config = REFUSED[words]
    folder = changed(published(name), tmp_path / "wrong", config)
    with pytest.raises(InputError, match=words):
        read(str(folder))


def test_a_head_that_the_file_lacks_is_named(published, tmp_path):
    folder = changed(published(RETRIEVAL), tmp_path / "lacking", {})
    tensors = load_file(folder / WEIGHTS)
    del tensors["itm_head.bias"]
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"lacks tensors of BlipForImageTextRetrieval: .*itm_head.bias"):
        read(str(folder))


# Planted mistakes


@pytest.fixture(scope="module")
def reference(published, tmp_path_factory):
    """Of a class its port, the inputs, and what transformers computes of them."""
    from vlm_jax.weights.oracles import load_oracle

    known = {}

    def of(name, std=0.02):
        if (name, std) not in known:
            folder = published(name) if std == 0.02 else publish(name, tmp_path_factory.mktemp("large") / name, std=std)
            converted = read(str(folder))
            model, unlike = load_oracle(
                converted, open_source(str(folder)), name, tmp_path_factory.mktemp("oracle") / name
            )
            assert not unlike
            inputs = converted.family.kind.inputs(converted.architecture)
            known[name, std] = converted, inputs, converted.family.kind.references(model, inputs)
            assert worst(*known[name, std]) <= BOUND
        return known[name, std]

    return of


def worst(converted, inputs, references):
    outputs = converted.family.kind.outputs(converted.module, converted.params, inputs)
    assert outputs.keys() == references.keys()
    shown = {name: ~np.isnan(x) for name, x in references.items()}
    return max(score(outputs[name][shown[name]], x[shown[name]]) for name, x in references.items())


@pytest.fixture
def compiled_anew():
    """A program that was compiled before a function was exchanged would hide the exchange."""
    run_recorded.clear_cache()
    yield
    run_recorded.clear_cache()


SETTINGS = {
    "the image's gelu": (CAPTIONS, 0.2, {"image.hidden_act": "gelu_new"}),  # of small inputs both are alike
    "the text's gelu": (CAPTIONS, 0.2, {"text.hidden_act": "gelu_new"}),
    "the text's epsilon on the image side": (CAPTIONS, 0.02, {"image.layer_norm_eps": 1e-12}),
    "the image's epsilon on the text side": (ANSWERS, 0.02, {"text.layer_norm_eps": 1e-5}),
    "the text's heads": (RETRIEVAL, 0.02, {"text.num_attention_heads": 3}),
}
LEAVES = {
    "query and key of the image side": (CAPTIONS, "/attention/query/", "/attention/key/"),
    "attention and cross-attention": (ANSWERS, "/cross_attention/output/", "/attention/output/"),
    "both BERTs": (ANSWERS, "text_encoder/trunk", "text_decoder/trunk"),
    "both word tables": (ANSWERS, "text_encoder/text/word", "text_decoder/text/word"),
    "both projections": (RETRIEVAL, "vision_proj", "text_proj"),
}


@pytest.mark.parametrize("mistake", SETTINGS)
def test_a_wrong_setting_is_red(mistake, reference):
    name, std, changes = SETTINGS[mistake]
    converted, inputs, references = reference(name, std)
    assert worst(with_settings(converted, **changes), inputs, references) > BOUND


@pytest.mark.parametrize("mistake", LEAVES)
def test_exchanged_parameters_are_red(mistake, reference):
    name, first, second = LEAVES[mistake]
    converted, inputs, references = reference(name)
    swapped = with_leaves(converted, lambda leaves: exchanged(leaves, first, second))
    assert worst(swapped, inputs, references) > BOUND


@pytest.mark.usefixtures("compiled_anew")
def test_a_pooled_image_that_is_normed_once_is_red(reference, monkeypatch):
    monkeypatch.setattr(BlipForConditionalGeneration, "pool", lambda self, tokens: tokens[:, 0])
    assert worst(*reference(CAPTIONS)) > BOUND


@pytest.mark.usefixtures("compiled_anew")
def test_a_decoder_that_attends_to_later_tokens_is_red(reference, monkeypatch):
    monkeypatch.setitem(attention.PATTERNS, "causal", attention.PATTERNS["bidirectional"])
    assert worst(*reference(CAPTIONS)) > BOUND


@pytest.mark.usefixtures("compiled_anew")
def test_an_answer_that_reads_the_padding_of_its_question_is_red(reference, monkeypatch):
    """transformers 5.24 lets it: its references are of questions without padding."""
    attend = attention.CrossAttention.__call__

    def unmasked(self, x, key_value, visible, keys=None):
        return attend(self, x, key_value, jnp.ones_like(visible), keys)

    monkeypatch.setattr(attention.CrossAttention, "__call__", unmasked)
    assert worst(*reference(ANSWERS)) > BOUND
