"""A port trains as the published model does, and goes back: the same steps of SGD here and in transformers."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.weights import fixtures
from tests.weights.fixtures import BY_NAME
from vlm_jax.errors import InputError
from vlm_jax.trees import flatten, unflatten
from vlm_jax.weights.checks import BOUND, score
from vlm_jax.weights.export import export
from vlm_jax.weights.import_folder import read

STEPS, RATE = 3, 0.1


def batch(converted):
    """The stored inputs, with one visible padding token in the first text."""
    case = BY_NAME[CASE_OF[converted.family.name, converted.architecture.parts]]
    inputs = {name: x.copy() for name, x in fixtures.inputs(case, fixtures.goldens()).items()}
    inputs["input_ids"][0, 2] = converted.architecture.pad_id
    return inputs


def visible(inputs):
    """Tokens and grid features that are no padding, [B, T + G]."""
    return np.concatenate([inputs["text_mask"], inputs.get("image_mask", np.ones((3, 0), bool))], axis=1)


def weights_like(name, shape):
    return np.random.default_rng(len(name)).normal(size=shape).astype(np.float32)


def loss_of(outputs, mask, mean, square):
    """Every output counts, by weights of its own; of sequences the visible positions."""
    total = 0.0
    for name, x in sorted(outputs.items()):
        weights = weights_like(name, tuple(x.shape)) * (mask[:, :, None] if len(x.shape) == 3 else 1)
        total = total + mean(x, weights) + 0.1 * mean(square(x), weights**2)
    return total


def converted_outputs(converted, params, inputs):
    """Heads, or the last layer where there are none; text first, as theirs."""
    output = converted.module.apply({"params": params}, **{name: jnp.asarray(x) for name, x in inputs.items()})
    if output.words is not None:
        outputs = {"words": jnp.concatenate([output.words, output.image_words], axis=1)}
        return outputs | ({"pairs": output.pairs} if output.pairs is not None else {})
    if output.answers is not None:
        return {"answers": output.answers}
    outputs = {"last": jnp.concatenate([output.text, output.image], axis=1)}
    return outputs | ({"pooled": output.pooled} if output.pooled is not None else {})


def train_converted(converted, inputs):
    """Three steps of a user's own loop."""
    optimizer, mask = optax.sgd(RATE), visible(inputs)

    def loss(params):
        outputs = converted_outputs(converted, params, inputs)
        return loss_of(outputs, mask, lambda x, w: jnp.mean(x * w), jnp.square)

    @jax.jit
    def step(params, state):
        changes, state = optimizer.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, changes), state

    params = jax.tree.map(jnp.asarray, converted.params)
    state = optimizer.init(params)
    for _ in range(STEPS):
        params, state = step(params, state)
    return dataclasses.replace(converted, params=jax.tree.map(np.asarray, params))


def source_outputs(model, inputs):
    import torch

    names = {"text_mask": "attention_mask", "segments": "token_type_ids", "image": "visual_embeds"}
    names |= {"image_mask": "visual_attention_mask"}
    arguments = {names.get(name, name): torch.tensor(x) for name, x in inputs.items()}
    arguments = {name: x if x.is_floating_point() else x.long() for name, x in arguments.items()}
    output = model(**arguments, return_dict=True)
    attributes = {"words": "prediction_logits", "pairs": "seq_relationship_logits", "pooled": "pooler_output"}
    outputs = {name: output[attribute] for name, attribute in attributes.items() if attribute in output}
    outputs |= {"last": output["last_hidden_state"]} if "last_hidden_state" in output else {}
    if "logits" in output:
        outputs["answers" if output["logits"].ndim == 2 else "words"] = output["logits"]
    return {name: x for name, x in outputs.items() if x is not None}


def train_source(model, inputs):
    import torch

    optimizer, mask = torch.optim.SGD(model.parameters(), lr=RATE), visible(inputs)
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss_of(source_outputs(model, inputs), mask, lambda x, w: (x * torch.tensor(w)).mean(), torch.square).backward()
        optimizer.step()
    return model


TRAINED = (
    "bert", "bert_no_pooler", "bert_masked", "bert_masked_untied", "bert_pretraining", "roberta", "roberta_masked",
    "distilbert", "distilbert_masked", "visual_bert_pretraining", "visual_bert_answers",
)  # fmt: skip


def parts_of(case):
    return tuple({"untied": "decoder"}.get(part, part) for part in case.parts)


CASE_OF = {(BY_NAME[name].family, parts_of(BY_NAME[name])): name for name in TRAINED}


# One of each family, with heads; the others in the slow set.
FAST = ("bert_pretraining", "roberta_masked", "distilbert_masked", "visual_bert_answers")


@pytest.mark.parity
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in TRAINED]
)
def test_a_port_trains_as_the_published_model(name, tmp_path):
    pytest.importorskip("torch", reason="torch is the oracle")
    import torch
    import transformers

    fixture = BY_NAME[name].fixtures[-1]
    folder, kind = fixtures.publish(fixture, tmp_path / "published"), fixtures.transformers_class(fixture.case)
    converted = read(str(folder))
    more = converted.family.load_options(converted.architecture)
    load = lambda place: getattr(transformers, kind).from_pretrained(place, **more).eval()  # noqa: E731
    inputs = batch(converted)
    source_model, trained = train_source(load(folder), inputs), train_converted(converted, inputs)
    moved = [
        np.abs(x - y).max() for x, y in zip(*map(jax.tree.leaves, (trained.params, converted.params)), strict=True)
    ]
    assert max(moved) > 1e-3
    export(trained, tmp_path / "exported")
    back = load(tmp_path / "exported")
    with torch.no_grad():
        before, expected, came = (source_outputs(model, inputs) for model in (load(folder), source_model, back))
    assert max(score(before[output].numpy(), expected[output].numpy()) for output in expected) > 100 * BOUND
    for output, reference in expected.items():
        shown = visible(inputs) if reference.ndim == 3 else ...
        assert score(came[output].numpy()[shown], reference.numpy()[shown]) <= BOUND, output
    # Of the two biases that transformers 5 gives an untied decoder, `decoder.bias` counts; the other is not trained.
    unused = set(converted.family.aliases.values()) if "decoder" in converted.architecture.parts else set()
    state = back.state_dict()
    for tensor, value in source_model.state_dict().items():
        assert tensor in unused or score(state[tensor].numpy(), value.numpy()) <= BOUND, tensor


@pytest.mark.parametrize("name", ["bert", "roberta_masked", "distilbert_masked", "visual_bert_answers"])
def test_a_port_has_the_published_parameters_and_no_others(name, tmp_path):
    fixture = BY_NAME[name].fixtures[-1]
    converted = read(str(fixtures.publish(fixture, tmp_path / "published")))
    numbers = sum(x.size for x in fixtures.tensors(fixture).values())
    assert sum(leaf.size for leaf in jax.tree.leaves(converted.params)) == numbers == converted.parameter_count


def test_padding_gets_no_gradient_from_texts(tmp_path):
    """Nor does RoBERTa's position of padding; another row of each table does."""
    converted = read(str(fixtures.publish(BY_NAME["roberta"].fixtures[-1], tmp_path / "published")))
    pad = converted.architecture.pad_id
    ids, mask = jnp.array([[0, 5, pad, 6, 2]]), jnp.ones((1, 5), bool)
    loss = lambda params: jnp.square(converted.module.apply({"params": params}, ids, mask).text[:, :3]).sum()  # noqa: E731
    gradient = jax.jit(jax.grad(loss))(converted.params)["text"]
    for table, row in (("word", 5), ("position", pad + 1)):
        rows = np.abs(gradient[table]["embedding"]).max(1)
        assert rows[pad] == 0 and rows[row] > 0, table


def test_what_is_not_a_number_is_not_exported(tmp_path):
    converted = read(str(fixtures.publish(BY_NAME["bert"].fixtures[0], tmp_path / "published")))
    leaves = dict(flatten(converted.params))
    leaves["trunk/layer_1/output/bias"] = np.full_like(leaves["trunk/layer_1/output/bias"], np.nan)
    with pytest.raises(InputError, match="trunk/layer_1/output/bias"):
        export(dataclasses.replace(converted, params=unflatten(leaves)), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parity
def test_a_trained_cnn_is_exported_as_it_computes(tmp_path):
    """Scales and biases of every norm moved: the file, by the published network, says what the port says."""
    torch = pytest.importorskip("torch", reason="torch is the oracle")
    from safetensors.numpy import load_file

    from vlm_jax.weights.torch_cnns import run_published

    fixture = BY_NAME["torchvision_resnet18"].fixtures[0]
    converted = read(str(fixtures.publish(fixture, tmp_path / "published")))
    random = np.random.default_rng(0)
    leaves = {
        path: x * random.uniform(0.9, 1.1, x.shape).astype(np.float32) for path, x in flatten(converted.params).items()
    }
    trained = dataclasses.replace(converted, params=unflatten(leaves))
    export(trained, tmp_path / "exported")
    tensors = load_file(tmp_path / "exported" / "model.safetensors")
    statistics = {name: x for name, x in fixtures.tensors(fixture).items() if "running" in name or "batches" in name}
    assert statistics and all(np.array_equal(tensors[name], x) for name, x in statistics.items())
    pixels = fixtures.inputs(fixture.case, fixtures.goldens())["pixels"]

    @jax.jit
    def run(params):
        output = trained.module.apply({"params": params}, jnp.asarray(pixels))
        return output.pooler_output, output.logits

    outputs, untrained = run(trained.params), run(converted.params)
    wide = {name: torch.tensor(x).double() for name, x in tensors.items()}
    references = run_published("torchvision_resnet", wide, torch.tensor(pixels).permute(0, 3, 1, 2).double())
    for output, reference, before in zip(outputs, references, untrained, strict=True):
        assert score(np.asarray(output), reference.numpy()) <= BOUND < score(np.asarray(before), reference.numpy())
