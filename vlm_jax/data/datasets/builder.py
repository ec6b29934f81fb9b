"""The TFDS builder of every prepared data set: a record an image, in array_record files that need no TensorFlow."""

import io
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import UInt8
from PIL import Image

from vlm_jax.data.settings import Prepared, Record


class RecordBuilder(tfds.core.GeneratorBasedBuilder):
    """Writes the records of a data set below `directory`, as its settings make them."""

    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, data: Prepared, directory: Path) -> None:
        self.name, self._data = data.kind, data
        config = tfds.core.BuilderConfig(name=data.variant, version=self.VERSION) if data.variant else None
        super().__init__(config=config, data_dir=str(directory), file_format="array_record")

    def _info(self) -> tfds.core.DatasetInfo:
        text = tfds.features.Text()
        features = {
            "image_id": text,
            "image": tfds.features.Image(shape=(*self._data.image_size, 3), encoding_format="png"),
            "questions": tfds.features.Sequence({"question_id": text, "text": text, "answers": text, "kind": text}),
        }
        if self._data.scenes:
            features |= {"scene": text, "captions": tfds.features.Sequence(text)}
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(features), description=type(self._data).__doc__
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterable[Record]]:
        return {split: iter(records) for split, records in self._data.records().items()}

    def _generate_examples(self) -> Iterator[Record]:
        raise NotImplementedError


def png(image: UInt8[np.ndarray, "h w 3"]) -> io.BytesIO:
    """The image as a PNG file."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    file.seek(0)
    return file
