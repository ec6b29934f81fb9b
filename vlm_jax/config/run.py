"""What the runs of all tasks have in common."""

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import model_validator

from vlm_jax.config.use import Predict
from vlm_jax.settings.effects import Length, Place, Rounding, Speed, Use
from vlm_jax.settings.groups import Group
from vlm_jax.settings.rules import Count, Seed, ShareBelowOne, nearest_multiple

if TYPE_CHECKING:
    from vlm_jax.config.optimizers import Optimizer
    from vlm_jax.data.image_settings import ImageInput
    from vlm_jax.data.settings import DataSet


class Config(Group):
    """One experiment; a task adds its fields."""

    name: Place[str] = "experiment"
    """Names the default run directory."""
    seed: Seed = 0
    """The one seed: initial weights, data order, dropout, sampled captions."""
    predict_options: ClassVar[type[Predict] | None] = None
    """Options of `experiments.predict`; None where a run of the task has nothing to predict."""
    generates_images: ClassVar[bool] = False
    """Whether the options of `ImageScoring` mean something to the task."""
    if TYPE_CHECKING:
        task: str
        data: DataSet
        image: ImageInput
        optimizer: Optimizer
        training: "Training"
        compute: "Compute"


class Training(Group):
    """How long, how often, and in which batches."""

    steps: Length[Count] = 1000
    """Optimizer steps."""
    batch_images: Count = 32
    """Images of an optimizer step, over all devices and micro-batches."""
    accumulation: Count = 1
    """Micro-batches of an optimizer step."""
    log_every: Speed[Count] = 50
    """Optimizer steps between progress lines."""
    evaluate_every: Use[Count] = 500
    """Optimizer steps between validations, each of which saves a checkpoint."""
    evaluation_batch_images: Speed[Count] = 64
    """Images of an evaluation batch."""

    @model_validator(mode="after")
    def check_batches(self) -> "Training":
        """A batch divides into micro-batches."""
        if self.batch_images % self.accumulation:
            raise ValueError(
                f"batch_images {self.batch_images} does not divide into accumulation {self.accumulation} "
                f"micro-batches; the nearest batch is {nearest_multiple(self.batch_images, self.accumulation)}"
            )
        return self


class TextTraining(Training):
    """How long, how often, and in which batches."""

    texts_per_image: Count = 10
    """Texts of an image in a batch (K). Of more texts, each batch samples K."""
    label_smoothing: ShareBelowOne = 0.0
    """Share of the target that is spread over all classes."""


class Compute(Group):
    """How a step is computed."""

    parallelism: Rounding[Literal["jit", "pmap"]] = "jit"
    """One sharded program over a mesh, or one copy a device."""
    devices: Rounding[Count | None] = None
    """Use only this many devices."""
    convolution: Literal["auto", "direct", "products"] = "auto"
    """How convolutions are computed: `direct` by lax.conv, as on a GPU; `products` in the ways that are fast on a CPU;
    `auto` chooses."""
    compilation_cache: Speed[bool] = True
    """Keep compiled programs below `data.directory`, at most 2 GiB, and read them there the next time."""


class TrunkCompute(Compute):
    """How a step is computed."""

    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of activations and products; parameters, softmax, norms and loss stay float32."""
    layers: Literal["unrolled", "remat", "scan", "scan_remat"] = "unrolled"
    """`remat` recomputes each layer in the backward pass: less memory, a third more work. `scan` compiles one layer
    and loops over it: faster to compile, slower to run."""
