"""How far generated images are from real ones in the features of a named network: a Fréchet distance, and no "FID"."""

from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import Sharding
from jaxtyping import Float, UInt8

from vlm_jax.config.encoders import PublishedCNN
from vlm_jax.data.image_settings import Crop, Stretch, StretchCrop
from vlm_jax.data.images import normalise, resize_image
from vlm_jax.errors import InputError
from vlm_jax.metrics.images import frechet_distance
from vlm_jax.placement import split_over_devices
from vlm_jax.settings.changes import with_changes
from vlm_jax.tasks.nearest_image import nearest
from vlm_jax.weights.import_folder import read

BATCH = 32
NAME = "frechet_distance"

Images = Sequence[UInt8[np.ndarray, "h w 3"]]
Features = Float[np.ndarray, "N C"]


class ImageFeatures:
    """The mean grid feature of the converted CNN that `features` names, at the size that it was trained for."""

    def __init__(self, source: str, wanted_sha256: str | None = None) -> None:
        converted = read(source).image_side
        if not isinstance(converted.architecture.model, PublishedCNN):
            raise InputError(f"features {source} is no CNN, but a {converted.family.name} model")
        sha256 = converted.origin.sha256
        if wanted_sha256 not in (None, sha256):
            raise InputError(f"features {source} has the SHA-256 {sha256}, not {wanted_sha256}")
        self.origin = {"cnn": converted.architecture.model.name, "source": source, "sha256": sha256}
        # Whole images, not the centre that a classifier sees: objects at an edge count.
        image = converted.architecture.input
        resize = Stretch() if isinstance(image.resize, (Stretch, StretchCrop)) else Crop()
        self._input = with_changes(image, {"resize": resize})
        module = converted.module
        self._params = jax.device_put({"params": converted.params})  # once, not with every batch
        self._run = split_over_devices(lambda params, image: module.apply(params, image)[0])

    def place(self, where: Sharding) -> None:
        """Put the parameters there."""
        self._params = jax.device_put(self._params, where)

    def __call__(self, images: Images) -> Features:
        """The features of images, in order."""
        features = []
        for first in range(0, len(images), BATCH):
            batch = np.zeros((BATCH, *self._input.size, 3), np.float32)
            chunk = images[first : first + BATCH]
            for row, image in enumerate(chunk):
                batch[row] = normalise(resize_image(image, self._input), self._input)
            features.append(jax.device_get(self._run(self._params, batch))[: len(chunk)])
        return np.concatenate(features)


def distances(
    features: ImageFeatures, *, generated: Images, decoded: Images, real: Images, train: Images, seed: int
) -> dict[str, float]:
    """Distances to the real images of a split: of generated images, and of baselines.

    `decoded` are the real ones through their image tokens: the best that image tokens allow. From the training images
    come a random choice of as many, real against real, and those nearest to the real ones, without a model.
    All compare since they are of the same number of images; a row that cannot be so is left out.
    """
    if len(real) < 2:
        return {}
    references, known = features(real), features(train)
    rows = {NAME: features(generated), f"baseline/image_tokens/{NAME}": features(decoded)}
    if len(known) >= len(references):
        chosen = np.random.default_rng(seed).choice(len(known), len(references), replace=False)
        rows[f"baseline/other_images/{NAME}"] = known[chosen]
    rows[f"baseline/nearest_image/{NAME}"] = known[nearest(_unit(references), _unit(known))]
    return {name: frechet_distance(vectors, references) for name, vectors in rows.items()}


def _unit(vectors: Features) -> Features:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(1e-12)
