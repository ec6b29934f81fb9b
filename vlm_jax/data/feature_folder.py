"""Features that a user gives in the place of images: what `extract-features` wrote, or files of the user's own."""

import dataclasses
import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from vlm_jax.data.cached_images import content_key, image_specification, key_images
from vlm_jax.data.feature_rows import StoredFeatures
from vlm_jax.data.file_cache import digest
from vlm_jax.data.image_settings import ImageInput
from vlm_jax.data.row_store import SPECIFICATION, RowStore
from vlm_jax.data.settings import DataSet
from vlm_jax.errors import InputError
from vlm_jax.types import Example, Json, StoredImage

TENSORS = ".safetensors"
EXPECTED = f"what extract-features wrote, a directory with ID.npy for each image, or a {TENSORS} file"
Grid = Float[np.ndarray, "*grid C"]


@runtime_checkable
class _Tensors(Protocol):
    """A .safetensors file that is open."""

    def keys(self) -> list[str]: ...

    def get_tensor(self, name: str) -> np.ndarray: ...


@dataclass(frozen=True)
class OwnFeatures:
    """Features by image id: `ID.npy` in a directory, or tensors of one file."""

    path: Path
    shape: tuple[int, ...]
    """Of an image's features: the grid, and channels; all images have one."""
    ids: dict[object, str] = dataclasses.field(default_factory=dict)
    """The id of each image of the run; of an encoded image by its key."""
    complete: bool = False
    """Each read makes a new array: as with decoded images, a data set is kept in memory only where it is small."""

    def get(self, image: bytes | Path | StoredImage) -> Grid:
        """The features of an image; `InputError` where there are none."""
        image_id = self.ids.get(content_key(image) if isinstance(image, bytes) else image)
        if image_id is None:
            raise InputError(f"an image is none of the run's, and {self.path} has features by image id")
        return self.read(image_id)

    def views(self, image: object) -> tuple[()]:
        """None: features are not augmented."""
        return ()

    def read(self, image_id: str) -> Grid:
        """The features of an image id; `InputError` where they are missing, damaged or of another shape."""
        try:
            features = _read(self.path, image_id)
        except Exception as error:  # NumPy and safetensors answer a damaged file with nearly any exception
            why = error if isinstance(error, InputError) else type(error).__name__
            raise InputError(f"{self.path} has no features of the image {image_id!r} that can be read: {why}") from None
        if features.dtype.kind != "f" or features.shape != self.shape:
            shape = f"{features.dtype}{list(features.shape)}"
            raise InputError(f"{self.path} has features {shape} of the image {image_id!r}; expected {list(self.shape)}")
        return features if features.dtype == np.float16 else features.astype(np.float32)

    def missing(self, image_ids: Sequence[str]) -> list[str]:
        """The ids without features, no file opened."""
        if self.path.suffix == TENSORS:
            names = set(_opened(self.path).keys())
            return [image_id for image_id in image_ids if image_id not in names]
        return [image_id for image_id in image_ids if not _file(self.path, image_id).is_file()]


@dataclass(frozen=True)
class FeatureShape:
    """What a trained model knows of features whose files it does not need."""

    shape: tuple[int, ...]
    complete: bool = False

    def get(self, image: object) -> Grid:
        """Raise `InputError`: whoever asks a trained model brings the features."""
        raise InputError(f"the model reads features of the shape {list(self.shape)} in the place of images; give those")

    def views(self, image: object) -> tuple[()]:
        """None."""
        return ()


FeatureSource = StoredFeatures | OwnFeatures


def open_features(path: Path, image: ImageInput) -> FeatureSource:
    """The features in a place; `InputError` where there are none, or of images that were resized in another way."""
    path = path.expanduser()
    if (path / SPECIFICATION).exists():
        store = RowStore.open(path)
        check_preprocessing(store, image)
        return StoredFeatures(store, {})
    first = _first_id(path)
    if first is None:
        raise InputError(f"model.image.folder {path} holds no features; expected {EXPECTED}")
    try:
        return OwnFeatures(path, _read(path, first).shape)
    except Exception as error:  # see `OwnFeatures.read`
        raise InputError(f"{path} has no features of {first!r} that can be read: {type(error).__name__}") from None


def features_of(source: FeatureSource, splits: Mapping[str, Sequence[Example]], data: DataSet) -> FeatureSource:
    """The features of the images of splits; `InputError` counts those that have none."""
    examples = list(splits.values())
    if isinstance(source, StoredFeatures):
        places, keys = key_images(examples, data)
        missing = [rows[place].image_id for key, (rows, place) in places.items() if key not in source.store]
        if missing:
            raise InputError(
                f"{source.store.directory} has no features of {len(missing):,} of {len(places):,} images as they are "
                f"now, the first {missing[0]!r}; run extract-features again"
            )
        return dataclasses.replace(source, keys=keys)
    ids = {
        content_key(example.image) if isinstance(example.image, bytes) else example.image: example.image_id
        for rows in examples
        for example in rows
    }
    if missing := source.missing(list(ids.values())):
        raise InputError(
            f"{source.path} has no features of {len(missing):,} of {len(ids):,} images, the first {missing[0]!r}"
        )
    return dataclasses.replace(source, ids=ids)


def description(source: FeatureSource) -> dict[str, Json]:
    """What decides the features of any image: a run goes on with the same alone."""
    if isinstance(source, StoredFeatures):
        return source.store.specification
    return {"shape": list(source.shape), "files": digest(json.dumps(_listing(source.path)))}


def check_preprocessing(store: RowStore, image: ImageInput) -> None:
    """Raise `InputError` where the images of a store were not made the model's input as a config says."""
    known = store.specification
    wanted = {
        "size": list(image.size), "mean": list(image.mean), "std": list(image.std),
        "resize": image_specification(image)["resize"],
    }  # fmt: skip
    other = [f"image.{name} {known.get(name)}" for name, value in wanted.items() if known.get(name) != value]
    if other:
        raise InputError(f"{store.directory} was made with {', '.join(other)}, and the config says otherwise; give it")


def _listing(path: Path) -> list[tuple[str, int]]:
    """The user's own features by name and size: their content is not read."""
    if path.suffix == TENSORS:
        return [(path.suffix, path.stat().st_size), *((name, 0) for name in sorted(_opened(path).keys()))]
    return sorted((str(file.relative_to(path)), file.stat().st_size) for file in path.rglob("*.npy"))


def _first_id(path: Path) -> str | None:
    if path.suffix == TENSORS and path.is_file():
        return min(_opened(path).keys(), default=None)
    names = (file.relative_to(path).with_suffix("") for file in path.rglob("*.npy"))
    return next((str(name) for name in names), None)


def _read(path: Path, image_id: str) -> np.ndarray:
    if path.suffix == TENSORS:
        return _opened(path).get_tensor(image_id)
    return np.load(_file(path, image_id), allow_pickle=False)


def _file(path: Path, image_id: str) -> Path:
    """`ID.npy`, which lies below the directory."""
    name = PurePosixPath(f"{image_id}.npy")
    if name.is_absolute() or ".." in name.parts:
        raise InputError(f"the image id {image_id!r} leads out of {path}")
    return path / name


@functools.lru_cache(maxsize=4)
def _opened(path: Path) -> _Tensors:
    """Tensors by name, read from the file when they are asked for."""
    from safetensors import safe_open

    try:
        return safe_open(path, "np")
    except Exception as error:
        raise InputError(f"{path} is no {TENSORS} file: {error}") from None
