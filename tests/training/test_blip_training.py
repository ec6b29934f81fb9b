"""BLIP's captioning model trains as it does in PyTorch: 20 AdamW steps in float64 have the same losses."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.weights.blip_models import IMAGE, TEXT, publish
from vlm_jax.config.optimizers import AdamW
from vlm_jax.training.optimizer import make_optimizer
from vlm_jax.weights.converted_model import make_module
from vlm_jax.weights.import_folder import read

torch = pytest.importorskip("torch", reason="torch is the oracle")
transformers = pytest.importorskip("transformers", reason="transformers is the oracle")
pytestmark = [pytest.mark.parity, pytest.mark.slow]

STEPS, RATE, BOUND = 20, 2.0**-10, 1e-7
SETTINGS = AdamW(
    learning_rate=RATE, schedule="constant", warmup_steps=0, weight_decay=0.05, clip_norm=None, no_decay=()
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return publish("BlipForConditionalGeneration", tmp_path_factory.mktemp("blip") / "model", std=0.2)


@pytest.fixture(scope="module")
def batch():
    """Images with captions of two lengths; one holds a padding token, whose row gets no gradient from it."""
    random = np.random.default_rng(0)
    mask = np.arange(9)[None] < np.array([9, 6, 9, 6])[:, None]
    ids = np.where(mask, random.integers(4, TEXT["vocab_size"], mask.shape), TEXT["pad_token_id"])
    ids[0, 3] = TEXT["pad_token_id"]
    size = IMAGE["image_size"]
    return {"image": random.normal(size=(4, size, size, 3)), "input_ids": ids.astype(np.int32), "text_mask": mask}


@pytest.fixture(scope="module")
def references(folder, batch):
    """The losses of transformers' class before each step."""
    model = transformers.BlipForConditionalGeneration.from_pretrained(folder, dtype=torch.float64).train()
    ids, mask = torch.tensor(batch["input_ids"]).long(), torch.tensor(batch["text_mask"])
    inputs = {"pixel_values": torch.tensor(batch["image"]).permute(0, 3, 1, 2), "input_ids": ids}
    inputs |= {"attention_mask": mask.long(), "labels": ids.masked_fill(~mask, -100)}
    options = {"betas": SETTINGS.betas, "eps": SETTINGS.epsilon, "weight_decay": SETTINGS.weight_decay}
    optimizer, losses = torch.optim.AdamW(model.parameters(), lr=RATE, **options), []
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = model(**inputs).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return np.array(losses)


def caption_loss(module, params, batch):
    """The mean cross-entropy of every visible token but the first."""
    log_p = jax.nn.log_softmax(module.apply({"params": params}, **batch).logits[:, :-1])
    chosen = jnp.take_along_axis(log_p, batch["input_ids"][:, 1:, None], axis=-1)[..., 0]
    return -jnp.mean(chosen, where=batch["text_mask"][:, 1:])


def train(architecture, params, batch):
    """The losses before each step."""
    with jax.enable_x64(True), jax.default_matmul_precision("highest"):
        module, batch = make_module(architecture, "float64"), jax.tree.map(jnp.asarray, batch)
        params = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf, np.float64)), params)
        optimizer = make_optimizer(SETTINGS, params, steps=STEPS)

        @jax.jit
        def step(params, state):
            loss, gradients = jax.value_and_grad(lambda params: caption_loss(module, params, batch))(params)
            updates, state = optimizer.update(gradients, state, params)
            return optax.apply_updates(params, updates), state, loss

        state, losses = optimizer.init(params), []
        for _ in range(STEPS):
            params, state, loss = step(params, state)
            losses.append(float(loss))
    return np.array(losses)


def test_losses_of_twenty_steps_are_those_of_pytorch(folder, batch, references):
    converted = read(str(folder))
    losses = train(converted.architecture, converted.params, batch)
    assert np.abs(losses - references).max() <= BOUND
    assert losses[-1] < 0.9 * losses[0]


def test_a_gradient_of_the_padding_row_is_red(folder, batch, references):
    converted = read(str(folder))
    model = converted.architecture.model.model_copy(update={"pad_token_id": TEXT["vocab_size"]})
    losses = train(converted.architecture._replace(model=model), converted.params, batch)
    assert np.abs(losses - references).max() > BOUND
