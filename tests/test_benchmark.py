"""The benchmark's PyTorch peer is the same model: logits, loss and gradients agree, and mistakes would show."""

import dataclasses
import json
from functools import partial

import jax
import pytest

from experiments import benchmark_decode
from experiments.benchmark_sides import by_path, furthest, logits_of, random_batch, shaken, task_of
from experiments.benchmark_train_step import TOLERANCE
from vlm_jax.config import Config, Data, ImageEncoder, ImageInput, Model, Optimizer, TextEncoder, Training
from vlm_jax.models import cnn
from vlm_jax.models.resnet import Bottleneck, ResNet
from vlm_jax.training.optimizer import make_optimizer
from vlm_jax.training.state import create_state
from vlm_jax.training.step import make_step
from vlm_jax.types import Batch

torch = pytest.importorskip("torch")
peers = pytest.importorskip("experiments.benchmark_peers")
pytestmark = pytest.mark.parity

SMALL = ImageEncoder(stem_width=8, widths=(8, 16), blocks=(0, 1))
CONFIG = Config(
    data=Data(texts_per_image=3, image=ImageInput(size=(16, 16))),
    model=Model(
        attention_pattern="image_to_text", head="cls", hidden_size=32, num_attention_heads=4, num_layers=3,
        intermediate_size=48, classes=7,
        image=SMALL, text=TextEncoder(vocab_size=50, feature_size=24, max_length=7),
    ),
    training=Training(batch_images=4, label_smoothing=0.1),
)  # fmt: skip
REFERENCE = dataclasses.replace(
    CONFIG.model,
    attention_pattern="bidirectional",
    head="per_token",
    image=ImageEncoder(cnn="resnet50", max_position_embeddings=9),
)
MODELS = {
    "image_to_text": CONFIG.model,
    "bidirectional": dataclasses.replace(CONFIG.model, attention_pattern="bidirectional", activation="gelu_new"),
    "resnet50": REFERENCE,
    "frozen_norm": dataclasses.replace(CONFIG.model, image=dataclasses.replace(SMALL, norm="frozen")),
}


def start(config):
    """Task, batch and parameters of ours; some slots are empty."""
    task, arrays = task_of(config), random_batch(config)
    arrays["weight"][1, 1:] = 0
    return task, arrays, shaken(jax.jit(task.init_params)(jax.random.key(0)))


def both(model, peer_model=None):
    """Ours as (logits, loss, gradient) by path, and the peer with our parameters, dropout off."""
    config = dataclasses.replace(CONFIG, model=model)
    if model.image.cnn == "resnet50":
        config = dataclasses.replace(config, data=dataclasses.replace(config.data, image=ImageInput(size=(64, 64))))
    task, arrays, params = start(config)
    batch = jax.device_put(Batch(**arrays))

    def loss(params):
        sums = task.loss_sums(params, batch, None)
        return sums.loss / sums.weight

    value, gradient = jax.jit(jax.value_and_grad(loss))(params)
    peer_config = dataclasses.replace(config, model=peer_model or model)
    peer = peers.PeerTraining(peer_config, model.classes, by_path(params), arrays)
    return (logits_of(task, params, batch), float(value), by_path(gradient)), peer


@pytest.fixture(autouse=True)
def shallow_resnet(monkeypatch):
    """One block a stage: every kind of block is in it, and it compiles in seconds."""
    monkeypatch.setitem(cnn.CNNS, "resnet50", partial(ResNet, Bottleneck, (1, 1, 1, 1)))
    monkeypatch.setattr(peers, "DEPTHS", (1, 1, 1, 1))


@pytest.mark.parametrize("name", MODELS)
def test_logits_loss_and_gradients_agree(name):
    (logits, loss, gradient), peer = both(MODELS[name])
    assert furthest(logits, peer.answer_logits()) < TOLERANCE
    value = peer.loss()
    assert float(value.detach()) == pytest.approx(loss, rel=TOLERANCE)
    value.backward()
    expected = {name: parameter.grad for name, parameter in peer.model.named_parameters()}
    gradients = peers.state_from(gradient)
    assert gradients.keys() == expected.keys()
    # Some gradients are zero but for rounding, such as a key's bias: the largest of all bounds the smallest scale.
    floor = 1e-2 * max(float(x.abs().max()) for x in expected.values())
    for name, own_gradient in gradients.items():
        difference = float((own_gradient - expected[name]).abs().max()) / max(floor, float(expected[name].abs().max()))
        assert difference < TOLERANCE, (name, difference)


@pytest.mark.parametrize(
    "mistake",
    [
        {"activation": "gelu_new"},
        {"num_attention_heads": 2},
        {"layer_norm_eps": 1e-6},
        {"attention_pattern": "bidirectional"},
    ],
)
def test_another_model_would_show(mistake):
    (logits, *_), peer = both(CONFIG.model, dataclasses.replace(CONFIG.model, **mistake))
    assert furthest(logits, peer.answer_logits()) > TOLERANCE


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
def test_optimizer_steps_agree(schedule):
    """Clipping, AdamW, decay, schedule and moving average, through warm-up and beyond."""
    # With the usual epsilon AdamW turns rounding in a gradient that is zero into whole steps.
    settings = Optimizer(
        learning_rate=0.02, schedule=schedule, warmup_steps=2, weight_decay=0.5, epsilon=0.01, clip_norm=0.1, ema=0.9
    )
    config = dataclasses.replace(CONFIG, optimizer=settings, training=dataclasses.replace(CONFIG.training, steps=5))
    task, arrays, params = start(config)
    peer = peers.PeerTraining(config, config.model.classes, by_path(params), arrays)
    optimizer = make_optimizer(settings, params, steps=5)
    state = create_state(params, optimizer, ema=True)
    step = jax.jit(make_step(config, task.loss_sums, optimizer, params))
    batch = jax.device_put(Batch(**arrays))
    for _ in range(4):
        state, _ = step(state, batch)
        peer.step()
    averages = dict(zip(dict(peer.model.named_parameters()), peer.average, strict=True))
    for parameters, expected in ((state.params, peer.model.state_dict()), (state.ema, averages)):
        for name, parameter in peers.state_from(by_path(parameters)).items():
            assert furthest(parameter.numpy(), expected[name].detach().numpy()) < TOLERANCE, name


def test_decoding_generates_what_transformers_generates(capsys):
    """With beams, the whole encoder-decoder with the same weights."""
    options = ["--words", "6", "--vocabulary", "300", "--batches", "2", "--beams", "3", "--rounds", "1", "--json"]
    assert benchmark_decode.main(options) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["batch"], row["beams"]) for row in rows] == [(2, 3)]
    assert all(row["ours_seconds"] > 0 and row["transformers_seconds"] > 0 for row in rows)
