"""The benchmark's PyTorch peer is the same model: logits, loss and gradients agree, and mistakes would show."""

import functools
import json

import jax
import pytest

from experiments import benchmark_decode
from experiments import benchmark_train_step as train_step
from experiments.benchmark_sides import by_path, classes_of, furthest, logits_of, random_batch, shaken, task_of
from experiments.benchmark_train_step import TOLERANCE
from vlm_jax.config import encoders
from vlm_jax.config.encoders import ResNet, SmallCNN
from vlm_jax.config.optimizers import AdamW, Muon
from vlm_jax.config.run import TextTraining
from vlm_jax.config.trunk import CustomLayout, TextInput
from vlm_jax.config.vqa import VQA, Model, PerToken
from vlm_jax.data.image_settings import AugmentedImages
from vlm_jax.settings.changes import with_changes
from vlm_jax.training.optimizer import make_optimizer
from vlm_jax.training.step import create_state, make_step
from vlm_jax.types import Batch

torch = pytest.importorskip("torch")
peers = pytest.importorskip("experiments.benchmark_peers")
peer_training = pytest.importorskip("experiments.benchmark_peer_training")
pytestmark = pytest.mark.parity

CONFIG = VQA(
    image=AugmentedImages(size=(16, 16)),
    model=Model(
        hidden_size=32,
        num_attention_heads=4,
        num_layers=3,
        intermediate_size=48,
        image=SmallCNN(stem_width=8, widths=(8, 16), blocks=(0, 1)),
        text=TextInput(vocab_size=50, max_length=7),
        layout=CustomLayout(text_feature_size=24),
    ),
    training=TextTraining(batch_images=4, texts_per_image=3, label_smoothing=0.1),
)
REFERENCE = {
    "model.fusion.attention_pattern": "bidirectional",
    "model.fusion.head": PerToken(classes=7),
    "model.image": ResNet(depth=50),
    "model.layout.max_image_positions": 9,
    "image.size": (64, 64),
}
MODELS = {
    "image_to_text": CONFIG,
    "bidirectional": with_changes(
        CONFIG, {"model.fusion.attention_pattern": "bidirectional", "model.layout.hidden_act": "gelu_new"}
    ),
    "resnet50": with_changes(CONFIG, REFERENCE),
    "frozen_norm": with_changes(CONFIG, {"model.image.norm": "frozen"}),
    "norms": with_changes(CONFIG, {"model.image.norm": "instance", "model.use_qk_norm": True}),
}


def start(config):
    """Task, batch and parameters of ours; some slots are empty."""
    task, arrays = task_of(config), random_batch(config)
    arrays["weight"][1, 1:] = 0
    return task, arrays, shaken(jax.jit(task.init_params)(jax.random.key(0)))


def both(config, peer_config=None):
    """Ours as (logits, loss, gradient) by path, and the peer with our parameters, dropout off."""
    arrays, params, outputs = ours(config)
    return outputs, peer_training.PeerTraining(peer_config or config, classes_of(config), by_path(params), arrays)


@functools.cache
def ours(config):
    """The batch, the parameters, and what the model makes of them."""
    task, arrays, params = start(config)
    batch = jax.device_put(Batch(**arrays))

    def loss(params):
        sums = task.loss_sums(params, batch, None)
        return sums.loss / sums.weight

    value, gradient = jax.jit(jax.value_and_grad(loss))(params)
    return arrays, params, (logits_of(task, params, batch), float(value), by_path(gradient))


@pytest.fixture(autouse=True)
def shallow_resnet(monkeypatch):
    """One block a stage: every kind of block is in it, and it compiles in seconds."""
    monkeypatch.setitem(encoders.RESNET_BLOCKS, 50, ("bottleneck", (1, 1, 1, 1)))
    monkeypatch.setattr(peers, "DEPTHS", (1, 1, 1, 1))


@pytest.mark.parametrize(
    "name",
    [
        "image_to_text",
        "resnet50",
        "norms",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("bidirectional", "frozen_norm")),
    ],
)
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
        {"model.layout.hidden_act": "gelu_new"},
        {"model.num_attention_heads": 2},
        {"model.layout.layer_norm_eps": 1e-6},
        {"model.fusion.attention_pattern": "bidirectional"},
    ],
)
def test_another_model_would_show(mistake):
    (logits, *_), peer = both(CONFIG, with_changes(CONFIG, mistake))
    assert furthest(logits, peer.answer_logits()) > TOLERANCE


@pytest.mark.parametrize(
    ("kind", "schedule"),
    [(AdamW, "cosine"), (Muon, "linear"), pytest.param(AdamW, "constant", marks=pytest.mark.slow)],
)
def test_optimizer_steps_agree(kind, schedule):
    """Clipping, AdamW, Muon, decay, schedule and moving average, through warm-up and beyond."""
    # With the usual epsilon AdamW turns rounding in a gradient that is zero into whole steps.
    settings = kind(
        learning_rate=0.02, schedule=schedule, warmup_steps=2, weight_decay=0.5, epsilon=0.01, clip_norm=0.1, ema=0.9
    )
    if kind is Muon:
        settings = with_changes(settings, {"matrices": ("^image/", "^trunk/")})
    config = with_changes(CONFIG, {"optimizer": settings, "training.steps": 5})
    task, arrays, params = start(config)
    peer = peer_training.PeerTraining(config, classes_of(config), by_path(params), arrays)
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


def test_all_convolutions_are_measured_in_turn(monkeypatch):
    methods = []
    monkeypatch.setattr(train_step, "_compare", lambda config, arguments: methods.append(config.compute.convolution))
    assert train_step.main(["configs/quickstart.py", "--convolution", "all"]) == 0
    assert train_step.main(["configs/quickstart.py", "--convolution", "direct"]) == 0
    assert methods == ["auto", "direct", "products", "direct"]
