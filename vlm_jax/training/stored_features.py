"""Outputs of a frozen image encoder, computed once and stored."""

import hashlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import islice
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float16, UInt8

from vlm_jax.config.run import Config
from vlm_jax.data.augmentation import augmentation_of
from vlm_jax.data.cached_images import image_specification, key_images
from vlm_jax.data.caches import Append, fill, open_cache
from vlm_jax.data.encoding import ExampleEncoder
from vlm_jax.data.feature_rows import StoredFeatures, view_key, view_random
from vlm_jax.data.row_store import RowStore
from vlm_jax.errors import InputError
from vlm_jax.placement import split_over_devices
from vlm_jax.settings.groups import json_tree
from vlm_jax.tasks.base import Task
from vlm_jax.tasks.text_task import TextTask
from vlm_jax.training.optimizer import frozen_mask
from vlm_jax.trees import flatten
from vlm_jax.types import Example, Json, Parameters

READ_AHEAD = 2  # batches of images


class View(NamedTuple):
    """A view of an image whose features are computed."""

    examples: Sequence[Example]
    place: int
    number: int
    """0 is the image itself."""


class Wanted(NamedTuple):
    """The views of a run's images."""

    views: dict[str, View]
    """By key."""
    keys: dict[object, str]
    """The key of each image that is not bytes."""
    augmentation: str
    num_views: int


def cache_features(
    task: Task, params: Parameters, config: Config, splits: Mapping[str, Sequence[Example]], *, trains: bool
) -> StoredFeatures | None:
    """The features of the images of splits, after those that no run has computed before are; None without a cache."""
    store = open_cache(config.data, "features", feature_specification(task, params))
    if store is None:
        return None
    wanted = wanted_views(config, splits, trains=trains)
    write = partial(write_features, task=task, params=params, views=wanted.views)
    complete = fill(store, wanted.views, config.data, what="views of images in float16", write=write)
    return stored(store, wanted) if complete else None


def stored(store: RowStore, wanted: Wanted) -> StoredFeatures:
    """The features of a store that has all that are wanted."""
    return StoredFeatures(store, wanted.keys, wanted.augmentation, wanted.num_views)


def check_frozen(task: Task, params: Parameters, config: Config) -> None:
    """Raise `InputError` where the outputs of the image encoder change in training, or there is none."""
    if not has_image_encoder(task, params):
        raise InputError(
            f"data.stored_views is {config.data.stored_views}, and the model has no image encoder with parameters; "
            "leave it out"
        )
    if not all(jax.tree.leaves(frozen_mask(params, config.optimizer)["image"])):
        raise InputError(
            f"data.stored_views is {config.data.stored_views}, and the image encoder is trained; freeze it "
            "(--optimizer.frozen ^image/), or leave data.stored_views out"
        )


def has_image_encoder(task: Task, params: Parameters) -> bool:
    """Whether a model turns pixels into grid features by parameters."""
    return isinstance(task, TextTask) and task.reads_images and bool(jax.tree.leaves(params.get("image", {})))


def wanted_views(config: Config, splits: Mapping[str, Sequence[Example]], *, trains: bool = True) -> Wanted:
    """Each image as it is and, of training images that are augmented, `data.stored_views` of their views."""
    augmentation = augmentation_of(config.image)
    num_views = config.data.stored_views if augmentation and trains else 0
    places, keys = key_images(list(splits.values()), config.data)
    views = {key: View(examples, place, 0) for key, (examples, place) in places.items()}
    trained = key_images([splits.get("train", ())], config.data).places if num_views else {}
    for key, (examples, place) in trained.items():
        for number in range(1, num_views + 1):
            views[view_key(key, number, augmentation)] = View(examples, place, number)
    return Wanted(views, keys, augmentation, num_views)


def feature_specification(task: TextTask, params: Parameters) -> dict[str, Json]:
    """What decides the features of an image beside its file: encoder, weights, preprocessing and layer."""
    encoder, image = task.config.model.image, task.encode.image
    pixels = jax.ShapeDtypeStruct((1, *image.size, 3), jnp.uint8)
    grid = jax.eval_shape(_compute(task), params["image"], pixels)
    settings = {name: value for name, value in json_tree(encoder).items() if name not in ("positions", "projection")}
    return image_specification(image) | {
        "shape": list(grid.shape[1:]),
        "dtype": "float16",
        "size": list(image.size),
        "mean": list(image.mean),
        "std": list(image.std),
        "encoder": settings,
        "layer": "grid",
        "computed_in": task.config.compute.dtype,
        "weights": weights_digest(params["image"]),
    }


def weights_digest(params: Parameters) -> str:
    """The SHA-256 of parameters, by their paths."""
    total = hashlib.sha256()
    for path, leaf in sorted(flatten(jax.device_get(params)).items()):
        total.update(f"{path} {leaf.dtype} {leaf.shape}\n".encode())
        total.update(np.ascontiguousarray(leaf).tobytes())
    return total.hexdigest()


def write_features(
    append: Append, missing: list[str], *, task: TextTask, params: Parameters, views: Mapping[str, View]
) -> None:
    """Compute and append the features of some views, batch by batch."""
    encode, size = task.encode, task.config.training.evaluation_batch_images
    compute, weights = split_over_devices(_compute(task)), params["image"]
    pool = ThreadPoolExecutor(task.config.data.threads)
    try:
        for keys, pixels in _batches(pool, missing, views, encode, size):
            batch = np.zeros((size, *pixels[0].shape), np.uint8)
            batch[: len(pixels)] = pixels
            rows = jax.device_get(compute(weights, batch))
            if not np.isfinite(rows[: len(keys)]).all():
                raise InputError("outputs of the image encoder are beyond the range of float16; leave out stored views")
            for key, row in zip(keys, rows, strict=False):
                append(key, row)
    finally:
        pool.shutdown(cancel_futures=True)


def _batches(
    pool: ThreadPoolExecutor, missing: list[str], views: Mapping[str, View], encode: ExampleEncoder, size: int
) -> Iterator[tuple[list[str], list[UInt8[np.ndarray, "h w 3"]]]]:
    """Keys and their pixels, `size` at a time; threads decode while the device computes."""
    waiting: deque[tuple[list[str], list[Future]]] = deque()
    remaining = iter(missing)
    while True:
        while len(waiting) < READ_AHEAD and (keys := list(islice(remaining, size))):
            waiting.append((keys, [pool.submit(_pixels, key, views[key], encode) for key in keys]))
        if not waiting:
            return
        keys, futures = waiting.popleft()
        yield keys, [future.result() for future in futures]


def _pixels(key: str, view: View, encode: ExampleEncoder) -> UInt8[np.ndarray, "h w 3"]:
    example = view.examples[view.place]
    return encode.new_view(example, view_random(key)) if view.number else encode.load_image(example)


def _compute(task: TextTask) -> Callable[[Parameters, Array], Array]:
    """From the parameters of the image encoder and pixels to features."""

    def compute(params: Parameters, pixels: UInt8[Array, "I h w 3"]) -> Float16[Array, "I *grid C"]:
        return task.image_features({"image": params}, pixels).astype(jnp.float16)

    return compute
