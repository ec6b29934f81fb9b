"""The training tier of a proof: does a port train as the published model does in PyTorch?

Two proofs. A tiny model of the same class, in float64 on both sides, where nothing but a mistake can differ. And the
file's own size, float32 against float64, where the difference is rounding.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from vlm_jax.config.optimizers import AdamW
from vlm_jax.models.pretrained import Module
from vlm_jax.settings.changes import with_changes
from vlm_jax.training.optimizer import learning_rate_schedule, make_optimizer
from vlm_jax.training.proof_task import Batch, Task, proof_batches, proof_loss, proof_task
from vlm_jax.types import Parameters
from vlm_jax.weights.checks import Check, comparison, not_installed
from vlm_jax.weights.converted_model import convert, make_module
from vlm_jax.weights.proof_subject import ProofSubject, proof_subject
from vlm_jax.weights.source import open_source

if TYPE_CHECKING:
    from vlm_jax.training.torch_training import Named, TorchTraining

SETTINGS = AdamW(
    learning_rate=1e-3, schedule="linear", warmup_steps=10, weight_decay=0.01, betas=(0.9, 0.999), epsilon=1e-8,
    clip_norm=1.0, no_decay=(r"(^|/)(bias|scale)$",),
)  # fmt: skip
STEPS, SNAPSHOTS = 100, (1, 10, 100)
GRADIENTS_64, FLOOR_64, PARAMETERS_64 = 1e-11, 1e-3, 1e-10
GRADIENTS_32, FLOOR_32 = 2e-5, 1e-2
LOSSES_32 = {5e-5: 1e-5, 5e-4: 5e-5}
"""How far the loss of a step may be off, by the peak of the learning rate."""


class Trained(NamedTuple):
    """What became of a port."""

    losses: list[float]
    """Before each step."""
    snapshots: dict[int, Parameters]
    """Parameters after some steps."""


def verify_training(
    name: str,
    *,
    strip_prefix: str = "",
    drop_tensors: str = "",
    class_name: str | None = None,
    steps: int = STEPS,
) -> Iterator[Check]:
    """Both proofs of a source or of an import's folder; the second one takes `steps` steps."""
    with proof_subject(name, strip_prefix=strip_prefix, drop_tensors=drop_tensors, class_name=class_name) as subject:
        task = proof_task(subject.converted)
        if why := not_installed("torch", "transformers"):
            yield Check("training", why, "not compared")
        elif not subject.converted.family.in_transformers:
            yield Check("training", "transformers does not have this class", "not compared")
        elif task is None:
            yield Check("training", "is compared for words, text and image classes and vectors", "not compared")
        else:
            yield Check("training", task, "note")
            yield from tiny_proof(tiny_subject(subject), task)
            yield from full_proof(subject, task, steps=steps)


def verify_tiny(name: str) -> Iterator[Check]:
    """The first proof of a source that is a tiny model itself."""
    with proof_subject(name) as subject:
        yield from tiny_proof(subject, proof_task(subject.converted))


def tiny_subject(subject: ProofSubject) -> ProofSubject:
    """A tiny model of the subject's class, with random weights."""
    from vlm_jax.training.tiny_models import write_tiny

    folder = subject.folder / "tiny"
    write_tiny(subject.oracle, subject.source.config, folder)
    source = open_source(str(folder))
    return ProofSubject(convert(source, class_name=subject.oracle), source, subject.oracle, folder)


def tiny_proof(
    subject: ProofSubject, task: Task, settings: AdamW = SETTINGS, *, snapshots: Sequence[int] = SNAPSHOTS
) -> Iterator[Check]:
    """In float64 on both sides: gradients, and parameters after some of 100 steps. We train by `settings`."""
    with jax.enable_x64(True):
        converted, reference = subject.converted, _reference(subject)
        module, batches = (
            make_module(converted.architecture, "float64"),
            proof_batches(converted, task, count=4, examples=6),
        )
        params = jax.tree.map(lambda x: jnp.asarray(np.asarray(x, np.float64)), converted.params)
        ours = reference.named(loss_and_gradients(module, task, params, batches[0])[1])
        yield compare_gradients("tiny, gradients", ours, reference.gradients(task, batches[0]), FLOOR_64, GRADIENTS_64)
        steps = max(snapshots)
        trained = train(module, task, params, batches, settings, steps)
        _, references = reference.train(task, batches, _rates(SETTINGS, steps), SETTINGS, snapshots)
        for step in snapshots:
            ours = reference.named(trained.snapshots[step])
            worst = np.max([np.abs(ours[name] - x).max() for name, x in references[step].items()])  # NaN stays
            yield comparison(f"tiny, {step} steps", f"{worst:.1e}", bool(worst <= PARAMETERS_64))


def full_proof(subject: ProofSubject, task: Task, *, steps: int = STEPS) -> Iterator[Check]:
    """In float32 against float64: gradients, and the loss at each step at two learning rates."""
    converted, reference = subject.converted, _reference(subject)
    module, batches = (
        make_module(converted.architecture, "float32"),
        proof_batches(converted, task, count=10, examples=8),
    )
    params = jax.tree.map(jnp.asarray, converted.params)
    ours = reference.named(loss_and_gradients(module, task, params, batches[0])[1])
    yield compare_gradients("gradients", ours, reference.gradients(task, batches[0]), FLOOR_32, GRADIENTS_32)
    for peak, bound in LOSSES_32.items():
        settings = with_changes(SETTINGS, {"learning_rate": peak})
        reference.reset()
        losses, _ = reference.train(task, batches, _rates(settings, steps), settings, ())
        trained = train(module, task, params, batches, settings, steps)
        off = np.abs(np.array(trained.losses) - losses)
        name, value = f"{steps} steps at {peak:g}", f"{off.max():.1e}, losses {losses[0]:.4f} to {losses[-1]:.4f}"
        if off.max() <= bound:
            yield comparison(name, value, True)
            continue
        # Is it us, or does rounding alone move this training that far? A collapse at a high rate is chaotic.
        reference.reset("float32")
        rounded, _ = reference.train(task, batches, _rates(settings, steps), settings, ())
        own = np.abs(np.array(rounded) - losses).max()
        if own <= bound or np.isnan(off).any():
            yield comparison(name, value, False)
        else:
            yield Check(name, f"{value}; PyTorch's own float32 is off by {own:.1e}", "not compared")


def compare_gradients(name: str, ours: "Named", references: "Named", floor: float, bound: float) -> Check:
    """The largest difference of a leaf, and its name; no proof where every reference is 0.

    Relative to the leaf's largest entry, or to `floor` times the largest of all: a bias of keys has a gradient of 0.
    """
    largest = {name: float(np.abs(x).max()) for name, x in references.items()}
    least = floor * max(largest.values())
    if not any(largest.values()):
        return comparison(name, "every gradient of the reference is 0", False)
    off = {name: float(np.abs(ours[name] - x).max()) / max(largest[name], least) for name, x in references.items()}
    worst = max(off, key=lambda name: off[name] if np.isfinite(off[name]) else np.inf)
    return comparison(name, f"{off[worst]:.1e} at {worst}", off[worst] <= bound)


def train(
    module: Module, task: Task, params: Parameters, batches: Sequence[Batch], settings: AdamW, steps: int
) -> Trained:
    """Some of the `STEPS` steps of a run by this project's optimizer."""
    optimizer = make_optimizer(settings, params, steps=STEPS)

    @jax.jit
    def update(gradients, state, params):
        updates, state = optimizer.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    state, losses, snapshots = optimizer.init(params), [], {}
    for index in range(steps):
        loss, gradients = loss_and_gradients(module, task, params, batches[index % len(batches)])
        params, state = update(gradients, state, params)
        losses.append(float(loss))
        if index + 1 in SNAPSHOTS and jax.config.jax_enable_x64:
            snapshots[index + 1] = params
    return Trained(losses, snapshots)


@partial(jax.jit, static_argnums=(0, 1))
def loss_and_gradients(module: Module, task: Task, params: Parameters, batch: Batch) -> tuple[jax.Array, Parameters]:
    """The loss of a batch, and the gradient of every parameter."""
    with jax.default_matmul_precision("highest"):
        return jax.value_and_grad(lambda p: proof_loss(module, task, p, batch))(params)


def _rates(settings: AdamW, steps: int) -> list[float]:
    """The learning rates of our run."""
    return jax.jit(jax.vmap(learning_rate_schedule(settings, STEPS)))(jnp.arange(steps)).tolist()


def _reference(subject: ProofSubject) -> "TorchTraining":
    from vlm_jax.training.torch_training import TorchTraining
    from vlm_jax.weights.oracles import load_oracle

    model, unlike = load_oracle(subject.converted, subject.source, subject.oracle, subject.folder / "trained")
    if unlike:
        raise ValueError(f"transformers' {subject.oracle}: {unlike}")
    return TorchTraining(subject.converted, model)
