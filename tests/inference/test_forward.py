"""A published model is called: its outputs are those of transformers' classes, under the same names."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vlm_jax
from tests.weights import fixtures, own
from vlm_jax.errors import InputError
from vlm_jax.models.pretrained_output import PretrainedOutput
from vlm_jax.weights.checks import BOUND, score
from vlm_jax.weights.families import FAMILIES

torch = pytest.importorskip("torch", reason="torch is the oracle")
transformers = pytest.importorskip("transformers", reason="transformers is the oracle")
pytestmark = pytest.mark.parity

from tests.weights import text_models  # noqa: E402  needs torch

CROSS = {"is_decoder": True, "add_cross_attention": True}
FAST = {
    "BertModel", "BertForPreTraining", "BertLMHeadModel", "RobertaForSequenceClassification", "MPNetForMaskedLM",
    "DistilBertForQuestionAnswering", "AlbertForTokenClassification", "ElectraForPreTraining",
}  # fmt: skip
"""One class for each name of an output; the others are in the slow set."""
CASES = [
    pytest.param(family, kind, {}, id=kind, marks=() if kind in FAST else pytest.mark.slow)
    for family in text_models.CONFIGS
    for kind, known in FAMILIES[family].classes.items()
    if not known.left and not known.decoder
]
CASES += [pytest.param("bert", "BertLMHeadModel", CROSS, id="BertLMHeadModel")]
NAMES = (
    "last_hidden_state", "pooler_output", "logits", "prediction_logits", "seq_relationship_logits", "start_logits",
    "end_logits",
)  # fmt: skip
TUPLES = ("hidden_states", "attentions", "cross_attentions")
IMAGE_CLASSES = {
    "ViTForImageClassification": ("ViTConfig", {}),
    "Dinov2Model": ("Dinov2Config", {"mlp_ratio": 2}),
    "CLIPVisionModelWithProjection": ("CLIPVisionConfig", {"projection_dim": 12}),
    "SiglipVisionModel": ("SiglipVisionConfig", {}),
}
TINY_IMAGES = {
    "hidden_size": 24, "num_attention_heads": 3, "num_hidden_layers": 2, "intermediate_size": 40, "image_size": 32,
    "patch_size": 8,
}  # fmt: skip
TEXTS, SECONDS = ["is there a circle ?", "what color"], ["the shape", "a circle ? is there a shape"]


def oracle(kind, folder, **options):
    options |= {"dtype": torch.float64, "attn_implementation": "eager"}
    return getattr(transformers, kind).from_pretrained(folder, **options).eval()


def random_inputs(model, seed=0):
    """Ids, mask and token types of two texts, and the states of an encoder where the model attends to one."""
    settings, random = model.config.model, np.random.default_rng(seed)
    mask = np.arange(11) < np.array([11, 6])[:, None]
    ids = random.integers(5, settings.vocab_size, mask.shape)
    arrays = {"input_ids": np.where(mask, ids, model.config.pad_id).astype(np.int32), "text_mask": mask}
    if settings.type_vocab_size > 1:
        arrays["segments"] = random.integers(0, 2, mask.shape).astype(np.int32)
    if size := model.config.image_size:
        arrays |= {"image": random.normal(size=(2, 5, size)).astype(np.float32), "image_mask": np.ones((2, 5), bool)}
    return arrays


def as_torch(arrays, **names):
    """The arrays under transformers' names."""
    names = {"input_ids": "input_ids", "text_mask": "attention_mask", "segments": "token_type_ids"} | names
    return {names[name]: torch.tensor(x).double() if x.dtype.kind == "f" else torch.tensor(x).long()
            for name, x in arrays.items()}  # fmt: skip


def assert_same(output, reference, shown):
    """Every output that transformers has; tokens that are padding are left out."""
    compared = []
    for name in NAMES:
        if getattr(reference, name, None) is None:
            continue
        ours, theirs = np.asarray(getattr(output, name)), getattr(reference, name).numpy()
        by_token = ours.ndim > 1 and ours.shape[:2] == shown.shape
        assert score(ours[shown] if by_token else ours, theirs[shown] if by_token else theirs) <= BOUND, name
        compared.append(name)
    for name in TUPLES:
        if getattr(reference, name, None):
            for ours, theirs in zip(getattr(output, name), getattr(reference, name), strict=True):
                ours, theirs = np.asarray(ours), theirs.numpy()
                if name != "hidden_states":  # the queries before the heads
                    ours, theirs = ours.swapaxes(1, 2), theirs.swapaxes(1, 2)
                assert score(ours[shown], theirs[shown]) <= BOUND, name
            compared.append(name)
    return compared


@pytest.mark.parametrize(("family", "kind", "settings"), CASES)
def test_outputs_are_those_of_transformers(family, kind, settings, tmp_path):
    folder = text_models.publish(family, kind, tmp_path / "model", **settings)
    model = vlm_jax.from_pretrained(folder)
    arrays = random_inputs(model)
    output = model(arrays, output_hidden_states=True, output_attentions=True)
    told = as_torch(arrays, image="encoder_hidden_states", image_mask="encoder_attention_mask")
    reference_model = oracle(kind, folder)
    with torch.no_grad():
        reference = reference_model(**told, output_hidden_states=True, output_attentions=True)
    compared = assert_same(output, reference, arrays["text_mask"])
    assert {"hidden_states", "attentions"} < set(compared) and ("cross_attentions" in compared) == bool(settings)
    assert sum(p.numel() for p in reference_model.parameters()) == number_of_parameters(model, arrays)


def number_of_parameters(model, arrays):
    """Of those that the module itself initialises."""
    fresh = jax.eval_shape(lambda arrays: model.module.init(jax.random.key(0), **arrays), arrays)
    assert jax.tree.map(jnp.shape, fresh["params"]) == jax.tree.map(jnp.shape, model.params)
    return sum(leaf.size for leaf in jax.tree.leaves(fresh))


@pytest.mark.parametrize("name", ["visual_bert_pretraining", "visual_bert_answers"])
def test_visual_bert_takes_token_types_of_its_grid_features(name, tmp_path):
    case = fixtures.BY_NAME[name]
    folder = fixtures.publish(case.fixtures[1], tmp_path / "model")
    model, random = vlm_jax.from_pretrained(folder), np.random.default_rng(0)
    arrays = random_inputs(model)
    types = random.integers(0, 2, (2, 5)).astype(np.int32)
    reference_model = oracle(fixtures.transformers_class(case), folder)
    names = {"image": "visual_embeds", "image_mask": "visual_attention_mask", "image_segments": "visual_token_type_ids"}
    shown = np.concatenate([arrays["text_mask"], arrays["image_mask"]], axis=1)
    for told in (arrays | {"image_segments": types}, arrays):
        output = model(told, output_hidden_states=True, output_attentions=True)
        with torch.no_grad():
            reference = reference_model(**as_torch(told, **names), output_hidden_states=True, output_attentions=True)
        assert {"hidden_states", "attentions"} < set(assert_same(output, reference, shown))
    assert sum(p.numel() for p in reference_model.parameters()) == number_of_parameters(model, arrays)


@pytest.mark.parametrize("kind", IMAGE_CLASSES)
def test_images_have_the_outputs_of_transformers(kind, tmp_path):
    config, settings = IMAGE_CLASSES[kind]
    torch.manual_seed(0)
    published = getattr(transformers, kind)(getattr(transformers, config)(**TINY_IMAGES | settings))
    with torch.no_grad():
        for parameter in published.parameters():
            parameter += 0.2 * torch.randn(parameter.shape)
    published.save_pretrained(tmp_path / "model")
    model = vlm_jax.from_pretrained(tmp_path / "model")
    images = [np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)] * 2
    arrays = model.encode(images=images)
    output = model(images=images, output_hidden_states=True, output_attentions=True)
    pixels = torch.tensor(arrays["image"]).permute(0, 3, 1, 2).double()
    reference_model = oracle(kind, tmp_path / "model")
    with torch.no_grad():
        reference = reference_model(pixels, output_hidden_states=True, output_attentions=True)
    shown = np.ones(output.hidden_states[0].shape[:2], bool)
    assert {"hidden_states", "attentions"} < set(assert_same(output, reference, shown))
    if output.image_embeds is not None:
        assert score(np.asarray(output.image_embeds), reference.image_embeds.numpy()) <= BOUND
    # DINOv2's token for masked patches takes part in its pretraining alone.
    counts = {name: x.numel() for name, x in reference_model.named_parameters() if not name.endswith("mask_token")}
    assert sum(counts.values()) == number_of_parameters(model, arrays)


def test_a_cnn_has_the_outputs_of_transformers(tmp_path):
    folder = fixtures.publish(fixtures.BY_NAME["resnet18"].fixtures[0], tmp_path / "resnet")
    model = vlm_jax.from_pretrained(folder)
    pixels = np.random.default_rng(0).normal(size=(2, 64, 48, 3)).astype(np.float32)
    output = model({"image": pixels})
    reference_model = oracle("ResNetForImageClassification", folder)
    with torch.no_grad():
        trunk = reference_model.resnet(torch.tensor(pixels).permute(0, 3, 1, 2).double())
        logits = reference_model(torch.tensor(pixels).permute(0, 3, 1, 2).double()).logits
    assert score(np.asarray(output.last_hidden_state), trunk.last_hidden_state.permute(0, 2, 3, 1).numpy()) <= BOUND
    assert score(np.asarray(output.pooler_output), trunk.pooler_output.flatten(1).numpy()) <= BOUND
    assert score(np.asarray(output.logits), logits.numpy()) <= BOUND


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return vlm_jax.from_pretrained(own.write(tmp_path_factory.mktemp("port") / "bert"))


def test_texts_and_pairs_are_those_of_the_tokenizer_of_transformers(model):
    tokenizer, reference_model = (
        transformers.AutoTokenizer.from_pretrained(model.source),
        oracle("BertModel", model.source),
    )
    for seconds in (None, SECONDS):
        told = tokenizer(TEXTS, seconds, padding=True, return_tensors="pt")
        with torch.no_grad():
            reference = reference_model(**told)
        output = model(TEXTS, pairs=seconds)
        assert_same(output, reference, told["attention_mask"].bool().numpy())
    assert model("what color").pooler_output.shape == (1, 16)
    padded = model(TEXTS, length=15)
    assert padded.last_hidden_state.shape == (2, 15, 16)
    np.testing.assert_allclose(padded.pooler_output, model(TEXTS).pooler_output, rtol=0, atol=2e-6)


def test_texts_of_many_lengths_are_computed_by_few_programs(model):
    """At 16 and 20 tokens, the most that there are; outputs are those of the length that the texts have."""
    fresh, options = vlm_jax.from_pretrained(model.source), {"output_hidden_states": True, "output_attentions": True}
    for words in (2, 5, 11, 14, 15, 18):
        texts = ["circle", "shape " * words]
        output, reference = fresh(texts, **options), model(model.encode(texts), **options)
        for ours, exact in zip(jax.tree.leaves(output), jax.tree.leaves(reference), strict=True):
            np.testing.assert_allclose(ours, exact, rtol=0, atol=2e-6)
    assert output.last_hidden_state.shape[1] == 20 and fresh._forward._cache_size() == 2
    fresh("a pair", pairs="of texts")
    fresh(["circle", "a circle ?"], pairs=["a shape", "shape"])
    assert fresh._forward._cache_size() == 4  # of one text, and with other token types


def test_an_output_is_cut_at_every_token():
    """Text positions end at 3 of 5; two grid positions stand behind them."""
    random = np.random.default_rng(0)
    sizes = {name: (2, 5, 4) for name in ("text", "words", "tokens", "spans")}
    sizes |= {"replaced": (2, 5), "image": (2, 2, 4), "image_words": (2, 2, 4), "pooled": (2, 4)}
    sizes |= {"pairs": (2, 2), "answers": (2, 5), "sequence": (2, 5)}
    arrays = {name: jnp.asarray(random.normal(size=size)) for name, size in sizes.items()}
    sizes = (2, 7, 4), (2, 1, 7, 7), (2, 1, 5, 7)
    states, weights, cross = (jnp.asarray(random.normal(size=size)) for size in sizes)
    whole = PretrainedOutput(**arrays, hidden_states=(states,), attentions=(weights,), cross_attentions=(cross,))
    cut, kept = whole.cut(3), [0, 1, 2, 5, 6]
    for name in ("text", "words", "tokens", "spans", "replaced"):
        np.testing.assert_array_equal(getattr(cut, name), arrays[name][:, :3])
    for name in ("image", "image_words", "pooled", "pairs", "answers", "sequence"):
        assert getattr(cut, name) is arrays[name]
    np.testing.assert_array_equal(cut.hidden_states[0], states[:, kept])
    np.testing.assert_array_equal(cut.attentions[0], weights[:, :, kept][..., kept])
    np.testing.assert_array_equal(cut.cross_attentions[0], cross[:, :, :3])


def test_a_mask_may_be_left_out(model):
    ids = model.encode(["what color is the shape ?"])["input_ids"]
    output = model(ids)
    for mask in (ids > 0, np.ones_like(ids)):  # transformers' masks are whole numbers
        np.testing.assert_array_equal(output.pooler_output, model({"input_ids": ids, "text_mask": mask}).pooler_output)
    last = np.arange(ids.shape[1]) < ids.shape[1] - 1
    hidden = [model({"input_ids": ids, "text_mask": mask[None]}).pooler_output for mask in (last, last.astype(int))]
    np.testing.assert_array_equal(*hidden)
    assert np.abs(hidden[0] - output.pooler_output).max() > 1e-3


def test_a_key_switches_dropout_on(model):
    key, other = jax.random.split(jax.random.key(0))
    states = [np.asarray(model(TEXTS, keys=k).last_hidden_state) for k in (key, key, other, None)]
    np.testing.assert_array_equal(states[0], states[1])
    assert np.abs(states[0] - states[2]).max() > 0.1 < np.abs(states[0] - states[3]).max()
    keys = jax.random.split(key, 2)
    both, second = model(TEXTS, keys=keys, length=8), model(TEXTS[1:], keys=keys[1:], length=8)
    np.testing.assert_allclose(both.pooler_output[1:], second.pooler_output, rtol=0, atol=2e-6)


def test_bfloat16_computes_narrow_and_keeps_its_parameters(model):
    narrow = vlm_jax.from_pretrained(model.source, dtype="bfloat16")
    output, reference = narrow(TEXTS), model(TEXTS)
    assert output.last_hidden_state.dtype == jnp.bfloat16 == output.pooler_output.dtype
    assert {leaf.dtype.name for leaf in jax.tree.leaves(narrow.params)} == {"float32"}
    error = np.abs(np.asarray(output.last_hidden_state, np.float32) - reference.last_hidden_state).max()
    assert 1e-4 < error < 0.1
    assert narrow.embed_texts(TEXTS).dtype == np.float32


def test_gradients_reach_the_parameters_that_are_given(model):
    gradients = jax.grad(lambda params: model(TEXTS, params=params).pooler_output.sum())(model.params)
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradients["trunk"]["layer_1"]["output"]))


def grids(*lengths):
    return [np.ones((length, fixtures.FEATURES), np.float32) for length in lengths]


PIXELS = {"image": np.ones((1, 64, 48, 3), np.float32)}
REFUSED = {
    "texts": (lambda text, image, grid: text(), "give texts"),
    "pairs": (lambda text, image, grid: text(TEXTS, pairs=["one"]), "2 texts and 1 pairs"),
    "long": (lambda text, image, grid: text("a " * 30), "needs 32 positions; there are 20"),
    "length": (lambda text, image, grid: text("a", length=21), "length is 21"),
    "frame": (lambda text, image, grid: text("a", pairs="a", length=3), "length is 3"),
    "images of a text encoder": (lambda text, image, grid: text("a", images=grids(1)), "leave images"),
    "token types of a text encoder": (
        lambda text, image, grid: text({name: np.ones((1, 1), int) for name in ("input_ids", "image_segments")}),
        "leave image_segments out",
    ),
    "unknown array": (lambda text, image, grid: text({"attention_mask": np.ones((1, 3))}), "'attention_mask'"),
    "no ids": (lambda text, image, grid: text({"text_mask": np.ones((1, 3), bool)}), "'input_ids'"),
    "an id": (lambda text, image, grid: text(np.full((1, 3), 14)), "token id 14"),
    "ids of a single text": (lambda text, image, grid: text(np.ones(3, int)), "input_ids are int"),
    "ids that are no whole numbers": (lambda text, image, grid: text(np.ones((1, 3))), "input_ids are float"),
    "arrays and texts": (lambda text, image, grid: text(np.ones((1, 3), int), pairs="a"), "pairs"),
    "texts of an image encoder": (lambda text, image, grid: image("a"), "reads no texts"),
    "no images": (lambda text, image, grid: image(), "give images"),
    "keys of an image encoder": (lambda text, image, grid: image(PIXELS, keys=jax.random.key(0)), "keys"),
    "attentions of a CNN": (
        lambda text, image, grid: image(PIXELS, output_attentions=True), "attentions",
    ),
    "as many images": (lambda text, image, grid: grid(TEXTS, images=grids(3)), "2 texts and 1 images"),
    "types without images": (lambda text, image, grid: grid("a", visual_token_type_ids=[[0]]), "without images"),
    "types by shape": (lambda text, image, grid: grid("a", images=grids(3), visual_token_type_ids=[[0]]), "[1, 3]"),
    "types by row": (
        lambda text, image, grid: grid("a", images=grids(1), visual_token_type_ids=[[2]]), "visual token type 2",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def models(model, tmp_path_factory):
    """A text encoder, a CNN, and VisualBERT with a tokenizer of as many words as it has rows."""
    folder = tmp_path_factory.mktemp("models")
    cnn = fixtures.publish(fixtures.BY_NAME["resnet18"].fixtures[0], folder / "resnet")
    seeing = fixtures.publish(fixtures.BY_NAME["visual_bert"].fixtures[1], folder / "visual_bert")
    words = [*own.WORDS, *(f"word{index}" for index in range(fixtures.WORDS - len(own.WORDS)))]
    (seeing / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    return model, vlm_jax.from_pretrained(cnn), vlm_jax.from_pretrained(seeing)


@pytest.mark.parametrize("what", REFUSED)
def test_what_does_not_fit_is_refused_in_one_line(what, models):
    call, words = REFUSED[what]
    with pytest.raises(InputError) as error:
        call(*models)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_a_run_computes_in_its_own_type(model):
    with pytest.raises(InputError, match="'float16'"):
        vlm_jax.from_pretrained(model.source, dtype="float16")
    with pytest.raises(InputError, match="is a run"):
        vlm_jax.from_pretrained("package:vlm_jax/quickstart", dtype="bfloat16")


def test_grid_features_of_several_lengths_are_padded(models):
    grid = models[2]
    arrays = grid.encode(TEXTS, images=grids(4, 2), visual_token_type_ids=np.ones((2, 4), int))
    assert arrays["image"].shape == (2, 4, fixtures.FEATURES) and arrays["image_mask"].sum(1).tolist() == [4, 2]
    default, told = grid(TEXTS, images=grids(4, 2)), grid(arrays)
    np.testing.assert_allclose(default.last_hidden_state, told.last_hidden_state, rtol=0, atol=2e-6)
    alone = grid(TEXTS[1:], images=grids(2))
    np.testing.assert_allclose(default.pooler_output[1:], alone.pooler_output, rtol=0, atol=2e-6)
