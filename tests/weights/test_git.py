"""GIT is transformers' GIT: layers, logits and captions; exports are the file; planted mistakes are red."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from safetensors.numpy import load_file, save_file

from tests.weights.test_mutations import exchanged
from vlm_jax.config.captioning import Beam, Greedy
from vlm_jax.decoding import Decoder, Special
from vlm_jax.decoding.prefilled import PrefilledImages
from vlm_jax.errors import InputError
from vlm_jax.models.git import PretrainedGit
from vlm_jax.settings.changes import with_changes
from vlm_jax.training.pretrained import open_pretrained
from vlm_jax.trees import flatten, unflatten
from vlm_jax.weights.checks import BOUND, score
from vlm_jax.weights.converted_model import convert, make_module
from vlm_jax.weights.export import export
from vlm_jax.weights.families import FAMILIES
from vlm_jax.weights.import_folder import read, write_import
from vlm_jax.weights.source import open_source
from vlm_jax.weights.verify import verify

torch = pytest.importorskip("torch", reason="torch is the oracle")
transformers = pytest.importorskip("transformers", reason="transformers is the oracle")
pytestmark = pytest.mark.parity

from tests.weights import captioners  # noqa: E402  needs torch
from vlm_jax.weights.git_oracle import git_references  # noqa: E402

VISION = {
    "hidden_size": 24, "intermediate_size": 36, "num_hidden_layers": 2, "num_attention_heads": 3, "image_size": 32,
    "patch_size": 8,
}  # fmt: skip
SETTINGS = {
    "vision_config": VISION, "vocab_size": 83, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    "intermediate_size": 48, "max_position_embeddings": 20, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
BEGIN, END, PAD, LENGTH = 1, 2, 0, 14
LAYERS = {"exported again", "image layer 1", "image layer 2", "image last state", "embeddings", "layer 1", "layer 2"}
CASES = {
    "untied": ("GitForCausalLM", 0.02, {}, {"logits"}),
    "tied": ("GitForCausalLM", 0.2, {"tie_word_embeddings": True}, {"logits"}),
    "trunk": ("GitModel", 0.02, {}, set()),
}


def shaken(kind="GitForCausalLM", std=0.02, **settings):
    """A tiny model of a class, all of whose parameters are noise."""
    model = getattr(transformers, kind)(transformers.GitConfig(**SETTINGS | settings)).eval()
    norms = {f"{name}.weight" for name, part in model.named_modules() if isinstance(part, torch.nn.LayerNorm)}
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        size = 0.2 if parameter.ndim == 1 else std
        parameter.data.copy_((name in norms) + size * noise)
    return model


def publish(folder, kind="GitForCausalLM", std=0.02, **settings):
    """The model as a folder, as transformers saves it."""
    shaken(kind, std, **settings).save_pretrained(folder)
    return folder


def compared(folder, std):
    """A port with its example inputs and what its class computes of them."""
    converted = read(str(publish(folder, std=std)))
    inputs = converted.family.kind.inputs(converted.architecture)
    return converted, inputs, git_references(shaken(std=std).double(), inputs)


@pytest.fixture(scope="module")
def port(tmp_path_factory):
    """One of small weights, where an epsilon counts."""
    return compared(tmp_path_factory.mktemp("git") / "small", 0.02)


@pytest.fixture(scope="module")
def port_of_large_weights(tmp_path_factory):
    """One where an activation counts."""
    return compared(tmp_path_factory.mktemp("git") / "large", 0.2)


def worst(port, module=None, leaves=None, inputs=None):
    """The largest difference of a layer or the logits."""
    converted, own_inputs, references = port
    params = converted.params if leaves is None else unflatten(leaves)
    outputs = converted.family.kind.outputs(module or converted.module, params, inputs or own_inputs)
    assert outputs.keys() == references.keys()
    shown = {name: ~np.isnan(x) for name, x in references.items()}
    return max(score(outputs[name][shown[name]], x[shown[name]]) for name, x in references.items())


# Verified and exported


@pytest.mark.parametrize("case", CASES)
def test_every_layer_is_the_published_one_and_comes_back(case, tmp_path):
    kind, std, settings, heads = CASES[case]
    folder = publish(tmp_path / "published", kind, std, **settings)
    results = {check.name: check.status for check in verify(str(folder)) if check.status != "note"}
    assert results == dict.fromkeys(LAYERS | heads, "ok")
    write_import(read(str(folder)), tmp_path / "port")
    assert export(read(str(tmp_path / "port")), tmp_path / "exported") == kind
    before, after = (load_file(place / "model.safetensors") for place in (folder, tmp_path / "exported"))
    assert before.keys() == after.keys() and all(before[name].tobytes() == after[name].tobytes() for name in before)
    _, info = getattr(transformers, kind).from_pretrained(tmp_path / "exported", output_loading_info=True)
    assert {name: keys for name, keys in info.items() if keys} == {}


def test_an_export_says_every_setting(tmp_path):
    """Each differs from its default, so that one that is not read or not written shows."""
    vision = VISION | {"hidden_act": "gelu", "layer_norm_eps": 1e-3}
    settings = {"hidden_act": "relu", "layer_norm_eps": 1e-4, "vision_config": vision, "pad_token_id": 3}
    folder = publish(tmp_path / "published", **settings)
    assert {check.status for check in verify(str(folder))} == {"note", "ok"}
    converted = read(str(folder))
    assert converted.architecture.pad_id == 3
    export(converted, tmp_path / "exported")
    before, after = (json.loads((place / "config.json").read_text()) for place in (folder, tmp_path / "exported"))
    assert after == before


def test_a_file_without_settings_of_the_image_side_has_those_of_its_class(tmp_path):
    published = publish(tmp_path / "published")
    config = json.loads((published / "config.json").read_text())
    (published / "config.json").write_text(json.dumps(config | {"vision_config": None}))
    with pytest.raises(InputError, match="does not fit"):  # of base size, which the tensors are not
        read(str(published))


def test_names_tell_the_class(tmp_path):
    published = publish(tmp_path / "published")
    config = json.loads((published / "config.json").read_text())
    for key in ("architectures", "model_type"):
        del config[key]
    (published / "config.json").write_text(json.dumps(config))
    converted = read(str(published))
    assert converted.published.name == "GitForCausalLM" and converted.family is FAMILIES["git"]


def test_frames_of_a_video_are_refused_by_name(tmp_path):
    with pytest.raises(InputError, match="num_image_with_embedding = 6"):
        read(str(publish(tmp_path / "video", num_image_with_embedding=6)))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"vision_config": [1]}, "vision_config"),
        ({"vision_config": VISION | {"attention_dropout": 0.1}}, "attention_dropout"),
        ({"vision_config": VISION | {"num_channels": 1}}, "num_channels"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type"),
        ({"hidden_act": "swish"}, "hidden_act"),
        ({"num_attention_heads": 5}, "num_attention_heads"),
    ],
)
def test_other_settings_are_refused_by_name(changes, named, tmp_path):
    folder = publish(tmp_path / "published")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))
    with pytest.raises(InputError, match=named):
        read(str(folder))


def test_a_model_without_its_output_layer_is_a_trunk(tmp_path):
    folder = publish(tmp_path / "published")
    tensors = load_file(folder / "model.safetensors")
    del tensors["output.bias"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    converted = convert(open_source(str(folder)))
    assert converted.published.missing == ("output.bias",) and converted.architecture.parts == ()


# What it computes


def test_images_of_another_size(port):
    """Positions are interpolated as transformers does it when it is told to."""
    converted, _, _ = port
    model = shaken().double()
    random = np.random.default_rng(1)
    image = random.normal(size=(2, 40, 48, 3)).astype(np.float32)
    ids = random.integers(3, 83, (2, 5)).astype(np.int32)
    pixels = torch.tensor(image).permute(0, 3, 1, 2).double()
    with torch.no_grad():
        reference = model(torch.tensor(ids).long(), pixel_values=pixels, interpolate_pos_encoding=True).logits
    output = jax.jit(converted.module.apply)({"params": converted.params}, jnp.asarray(image), jnp.asarray(ids))
    assert output.last_hidden_state.shape == (2, 31 + 5, 32)
    assert score(np.asarray(output.logits), reference[:, 31:].numpy()) <= BOUND


def test_tokens_one_by_one_are_the_whole_text(port):
    converted, inputs, references = port
    prefilled = PrefilledImages.prefill(
        converted.module, {"params": converted.params}, jnp.asarray(inputs["image"]), None
    )
    cache, logits, decode_step = prefilled.empty_cache(1, 12), [], jax.jit(prefilled.decode_step)
    for token in inputs["input_ids"].T:
        step, cache = decode_step(cache, jnp.asarray(token)[:, None, None])
        logits.append(step[:, 0, 0])
    shown = inputs["text_mask"]
    assert score(np.stack(logits, 1)[shown], references["logits"][shown]) <= BOUND


def test_more_tokens_than_positions_are_refused(port):
    converted, inputs, _ = port
    with pytest.raises(InputError, match="positions"):
        converted.module.apply({"params": converted.params}, jnp.asarray(inputs["image"]), jnp.ones((2, 21), jnp.int32))


def test_its_image_side_is_an_image_encoder(port, tmp_path):
    """A run may start from it (`init.image`)."""
    source = open_pretrained(str(publish(tmp_path / "published")))
    assert source.leaves.keys() == {path for path in flatten(port[0].params) if path.startswith("image/")}
    encoder = port[0].image_side
    output = jax.jit(encoder.module.apply)({"params": encoder.params}, jnp.asarray(port[1]["image"]))
    assert score(np.asarray(output.tokens), port[2]["image last state"]) <= BOUND


# Training


def test_twenty_steps_of_adamw_are_those_of_torch(tmp_path):
    """In float64, of captions with padding, of which the losses do not count."""
    settings = {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.01}
    folder = publish(tmp_path / "published", std=0.2)
    random = np.random.default_rng(0)
    image, ids = random.normal(size=(4, 32, 32, 3)), random.integers(1, 83, (4, 9))
    mask = np.arange(9) < np.array([9, 7, 4, 9])[:, None]
    ids = np.where(mask, ids, PAD)
    losses = torch_losses(shaken(std=0.2).double(), image, ids, mask, settings)
    with jax.enable_x64(True):
        converted = read(str(folder))
        module = make_module(converted.architecture, "float64")
        params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), converted.params)
        optimizer = optax.adamw(1e-3, b1=0.9, b2=0.999, eps=1e-8, weight_decay=0.01)
        inputs = jnp.asarray(image), jnp.asarray(ids, jnp.int32), jnp.asarray(mask)

        def loss_of(params):
            log_p = jax.nn.log_softmax(module.apply({"params": params}, *inputs).logits[:, :-1])
            chosen = jnp.take_along_axis(log_p, inputs[1][:, 1:, None], axis=-1)[..., 0]
            return -jnp.mean(chosen, where=inputs[2][:, 1:])

        @jax.jit
        def step(params, state):
            loss, gradients = jax.value_and_grad(loss_of)(params)
            updates, state = optimizer.update(gradients, state, params)
            return optax.apply_updates(params, updates), state, loss

        state, own = optimizer.init(params), []
        for _ in losses:
            params, state, loss = step(params, state)
            own.append(float(loss))
    assert losses[-1] < losses[0] - 0.5
    np.testing.assert_allclose(own, losses, rtol=0, atol=1e-7)


def torch_losses(model, image, ids, mask, settings):
    """The losses of 20 steps, dropout off."""
    model.git.image_encoder.config._attn_implementation = "sdpa"  # the other one rounds its softmax to float32
    optimizer, losses = torch.optim.AdamW(model.parameters(), **settings), []
    pixels, ids, mask = torch.tensor(image).permute(0, 3, 1, 2), torch.tensor(ids), torch.tensor(mask)
    labels = ids.where(mask, -100)[:, 1:]
    for _ in range(20):
        logits = model(ids, attention_mask=mask.long(), pixel_values=pixels).logits[:, -ids.shape[1] : -1]
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


# Planted mistakes


@pytest.mark.parametrize(
    "changes",
    [
        {"attention_pattern": "causal"},
        {"attention_pattern": "bidirectional"},
        {"image.hidden_act": "gelu"},
        {"image.layer_norm_eps": 1e-12},
        {"layer_norm_eps": 1e-5},
    ],
    ids=str,
)
def test_another_setting_is_noticed(port, changes):
    module = port[0].module
    changed = module.clone(settings=with_changes(module.settings, changes))
    assert worst(port) <= BOUND < worst(port, changed)


def test_another_gelu_of_the_text_is_noticed(port_of_large_weights):
    module = port_of_large_weights[0].module
    changed = module.clone(settings=with_changes(module.settings, {"hidden_act": "gelu_new"}))
    assert worst(port_of_large_weights) <= BOUND < worst(port_of_large_weights, changed)


@pytest.mark.parametrize(
    ("first", "second"),
    [("/attention_norm/", "/output_norm/"), ("/query/", "/key/"), ("trunk/layer_0/", "trunk/layer_1/")],
)
def test_exchanged_parameters_are_noticed(port, first, second):
    assert worst(port, leaves=exchanged(dict(flatten(port[0].params)), first, second)) > BOUND


@pytest.mark.parametrize("path", ["text/position/embedding", "image/embed/positions/embedding", "head/bias"])
def test_shifted_rows_are_noticed(port, path):
    leaves = dict(flatten(port[0].params))
    assert worst(port, leaves=leaves | {path: np.roll(leaves[path], 1, axis=0)}) > BOUND


def test_an_epsilon_of_the_text_in_the_projection_is_noticed(port, monkeypatch):
    """The norm of the projected image has the image transformer's epsilon."""
    settings = port[0].module.settings
    other = with_changes(settings, {"image.layer_norm_eps": settings.layer_norm_eps})
    embed = PretrainedGit.make_embeddings

    def wrong(self):
        text, projected = embed(self)
        return text, projected.clone(settings=other)

    monkeypatch.setattr(PretrainedGit, "make_embeddings", wrong)
    jax.clear_caches()
    try:
        assert worst(port) > BOUND
    finally:
        monkeypatch.undo()
        jax.clear_caches()


def test_a_lost_class_token_is_noticed(port, monkeypatch):
    """The grid in its place has one position less."""
    monkeypatch.setattr(PretrainedGit, "encode_image", lambda self, image: self.image.features(image).tokens[:, 1:])
    converted, inputs, references = port
    output = jax.jit(converted.module.apply)({"params": converted.params}, **jax.tree.map(jnp.asarray, inputs))
    shown = inputs["text_mask"]
    assert score(np.asarray(output.logits)[shown], references["logits"][shown]) > BOUND


# Captions


def captions(converted, pixels, settings):
    decoder = Decoder(converted.module, settings, Special(BEGIN, END, PAD), max_tokens=LENGTH - 1)
    return jax.device_get(decoder({"params": converted.params}, jnp.asarray(pixels)))


@pytest.fixture(scope="module")
def seeing(tmp_path_factory):
    """A tiny port that sees its images, its class in float64, and images."""
    model = transformers.GitForCausalLM(transformers.GitConfig(**SETTINGS)).eval()
    captioners.make_seeing(model, output="output.weight", gain=1.5)
    model.git.image_encoder.vision_model.embeddings.class_embedding.data *= 10
    model.output.weight.data *= 6
    model.output.bias.data[END] += 5
    folder = tmp_path_factory.mktemp("seeing") / "published"
    model.save_pretrained(folder)
    pixels = np.random.default_rng(0).normal(size=(8, 32, 32, 3)).astype(np.float32)
    return read(str(folder)), model.double(), pixels


WAYS = {1: Greedy(), 3: Beam(num_beams=3, length_penalty=1.0, early_stopping=False)}


@pytest.mark.parametrize("num_beams", WAYS)
def test_captions_are_those_of_transformers(seeing, num_beams):
    converted, model, pixels = seeing
    special = {"begin": BEGIN, "end": END, "pad": PAD}
    reference = captioners.generated(model, pixels, num_beams=num_beams, max_length=LENGTH, **special)
    decoded = captions(converted, pixels, WAYS[num_beams])
    clear = reference.gap > 5e-5
    assert clear.sum() >= 6 and captioners.same_captions(decoded, reference)[clear].all()
    lengths = (decoded.ids[:, 0] != PAD).sum(1)
    assert len(set(lengths.tolist())) >= 3 and len({tuple(ids) for ids in decoded.ids[:, 0].tolist()}) >= 6
    exchanged_images = captions(converted, np.roll(pixels, 1, axis=0), WAYS[num_beams])
    np.testing.assert_array_equal(exchanged_images.ids, np.roll(decoded.ids, 1, axis=0))


def test_a_position_that_counts_the_image_is_noticed(seeing, monkeypatch):
    """The trap of a loop over transformers' GIT that leaves its position_ids out."""
    converted, model, pixels = seeing
    special = {"begin": BEGIN, "end": END, "pad": PAD}
    reference = captioners.generated(model, pixels, num_beams=1, max_length=LENGTH, **special)
    right = PretrainedGit.next_token_logits

    def wrong(self, prefix, cache, ids):
        table = self.variables["params"]["text"]["position"]["embedding"]
        self.variables["params"]["text"]["position"]["embedding"] = jnp.roll(table, -1, axis=0)
        return right(self, prefix, cache, ids)

    monkeypatch.setattr(PretrainedGit, "next_token_logits", wrong)
    decoded = captions(converted, pixels, Greedy())
    assert (decoded.ids[:, 0] != reference.ids).any()
